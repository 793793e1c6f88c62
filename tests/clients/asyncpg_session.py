"""asyncpg, which describes every statement and sends all values in binary, and SQLAlchemy on top of it. Usage: asyncpg_session.py PORT"""

import asyncio
import datetime
import decimal
import sys
import uuid

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

port = int(sys.argv[1])


async def plain():
    connection = await asyncpg.connect(host="127.0.0.1", port=port, user="tester", database="test")

    # A cast says what a parameter is, and so does what it is compared with.
    moment = datetime.datetime(2026, 11, 28, 12, 30, tzinfo=datetime.timezone.utc)
    values = [
        ("int", 5), ("bigint", 2**40), ("smallint", -3), ("double precision", 0.5), ("real", 0.25), ("bool", True), ("text", "ä"),
        ("varchar", "x"), ("bytea", b"\x00\xff"), ("date", datetime.date(2026, 1, 2)), ("timestamptz", moment),
        ("timestamp", moment.replace(tzinfo=None)), ("time", datetime.time(1, 2, 3)), ("interval", datetime.timedelta(days=1, seconds=5)),
        ("uuid", uuid.UUID(int=7)), ("numeric", decimal.Decimal("1.5")), ("int[]", [1, None, 3]), ("text[]", ["a", "b,c"]),
        ("bigint[]", []), ("float8[]", [0.5]), ("oid", 26), ("oid[]", [1, 2]), ("jsonb", '{"a": 1}'),
    ]
    for name, value in values:
        found = await connection.fetchval(f"SELECT $1::{name}", value)
        assert found == value, (name, found)
        assert await connection.fetchval(f"SELECT CAST($1 AS {name}) IS NULL", None)
    assert await connection.fetchval("SELECT $1::int + $1", 2) == 4
    assert await connection.fetchval("SELECT $1::int::text", 2) == "2"

    await connection.execute("CREATE TABLE points (id int PRIMARY KEY, label text, place vector(2))")
    await connection.executemany("INSERT INTO points (id, label) VALUES ($1, $2)", [(n, f"p{n}") for n in range(10)])
    await connection.copy_records_to_table("points", records=[(10, "p10")], columns=["id", "label"])
    rows = await connection.fetch("SELECT id FROM points WHERE id = ANY($1) ORDER BY id", [3, 5, 99])
    assert [row["id"] for row in rows] == [3, 5]
    assert await connection.fetchval("SELECT count(*) FROM points WHERE label = ANY($1::text[])", ["p1", "p10"]) == 2
    assert await connection.fetchval("SELECT count(*) FROM points WHERE NOT id = ANY($1)", [0]) == 10

    names = await connection.fetchval("SELECT array_agg(relname) FROM pg_class WHERE oid = ANY($1::oid[])", [1259])
    assert names == ["pg_class"], names

    # A type that asyncpg does not know is looked up in the catalog.
    assert await connection.fetchval("SELECT '[1,2,3]'::vector") == "[1,2,3]"
    await connection.execute("UPDATE points SET place = $1 WHERE id = $2", "[3,4]", 1)
    assert await connection.fetchval("SELECT place <-> $1 FROM points WHERE id = 1", "[0,0]") == 5.0
    await connection.set_type_codec(
        "vector", schema="public", format="text",
        encoder=lambda numbers: "[" + ",".join(map(str, numbers)) + "]", decoder=lambda text: [float(part) for part in text[1:-1].split(",")],
    )
    assert await connection.fetchval("SELECT place FROM points WHERE id = 1") == [3.0, 4.0]

    async with connection.transaction(isolation="serializable", readonly=True):
        assert [row["id"] async for row in connection.cursor("SELECT id FROM points ORDER BY id LIMIT $1", 3)] == [0, 1, 2]
    try:
        await connection.fetchval("SELECT $1::int", "five")
        raise AssertionError("a text is no number")
    except asyncpg.exceptions.DataError:
        pass
    await connection.reset()
    await connection.close()


async def orm():
    engine = create_async_engine(f"postgresql+asyncpg://tester@127.0.0.1:{port}/test")
    metadata = sa.MetaData()
    visits = sa.Table(
        "visits", metadata,
        sa.Column("id", sa.Integer, primary_key=True), sa.Column("who", sa.String(20), nullable=False),
        sa.Column("day", sa.Date), sa.Column("weight", sa.Float), sa.Column("paid", sa.Boolean), sa.Column("cost", sa.Numeric(10, 2)),
    )
    day = datetime.date(2026, 11, 28)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.execute(sa.insert(visits), [
            {"who": "ann", "day": day, "weight": 1.5, "paid": True, "cost": decimal.Decimal("2.50")},
            {"who": "bob", "day": None, "weight": None, "paid": False, "cost": None},
        ])
    async with engine.connect() as connection:
        wanted = sa.select(visits.c.id, visits.c.who, visits.c.cost).where(visits.c.day >= day, visits.c.weight < 2, visits.c.paid)
        assert (await connection.execute(wanted)).all() == [(1, "ann", decimal.Decimal("2.50"))]
        some = sa.select(sa.func.count()).where(visits.c.id.in_([1, 2, 3])).limit(5)
        assert (await connection.execute(some)).scalar_one() == 2
        columns = await connection.run_sync(lambda sync: sa.inspect(sync).get_columns("visits"))
        names = [column["name"] for column in columns]
        assert names == ["id", "who", "day", "weight", "paid", "cost"], names
        keys = await connection.run_sync(lambda sync: sa.inspect(sync).get_pk_constraint("visits"))
        assert keys["constrained_columns"] == ["id"], keys
    async with engine.begin() as connection:
        await connection.execute(sa.update(visits).where(visits.c.who == "bob").values(weight=visits.c.id * 0.5))
        await connection.run_sync(metadata.drop_all)
    await engine.dispose()


asyncio.run(plain())
asyncio.run(orm())
print("all checks passed")
