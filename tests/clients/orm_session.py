"""What applications do with tables of their own: psycopg's nested transactions, named cursors and pipelines, SQLAlchemy's
tables with keys and sequences. Usage: orm_session.py PORT"""

import sys

import psycopg
import sqlalchemy as sa
from psycopg.rows import dict_row

port = sys.argv[1]
address = f"host=127.0.0.1 port={port} user=tester dbname=test"

with psycopg.connect(address) as connection:
    connection.execute("CREATE TABLE accounts (id serial PRIMARY KEY, owner text UNIQUE, balance int CHECK (balance >= 0))")
    connection.commit()

    # A transaction in a transaction is a savepoint; the inner failure leaves the outer one alive.
    with connection.transaction():
        connection.execute("INSERT INTO accounts (owner, balance) VALUES ('ann', 10)")
        try:
            with connection.transaction():
                connection.execute("INSERT INTO accounts (owner, balance) VALUES ('ann', 20)")
            raise AssertionError("the key was taken twice")
        except psycopg.errors.UniqueViolation as error:
            assert error.diag.constraint_name == "accounts_owner_key", error.diag.constraint_name
            assert error.diag.table_name == "accounts" and error.diag.schema_name == "public"
            assert error.diag.message_detail == "Key (owner)=(ann) already exists.", error.diag.message_detail
        with connection.transaction(force_rollback=True):
            connection.execute("UPDATE accounts SET balance = 99")
        try:
            with connection.transaction():
                connection.execute("UPDATE accounts SET balance = -1")
        except psycopg.errors.CheckViolation as error:
            assert error.diag.constraint_name == "accounts_balance_check"
    assert connection.execute("SELECT owner, balance FROM accounts").fetchall() == [("ann", 10)]

    # Names of columns, where the statement gives none.
    cursor = connection.execute("SELECT count(*), max(balance), 1, 'x'::text, count(*) FROM accounts")
    assert [column.name for column in cursor.description] == ["count", "max", "?column?", "text", "count"]
    cursor = connection.cursor(row_factory=dict_row)
    assert cursor.execute("SELECT owner, sum(balance) FROM accounts GROUP BY owner").fetchall() == [{"owner": "ann", "sum": 10}]

    # A named cursor takes its rows a few at a time.
    with connection.cursor(name="many") as cursor:
        cursor.itersize = 1000
        cursor.execute("SELECT g FROM generate_series(1, %s) AS g", (5000,))
        assert sum(row[0] for row in cursor) == 12_502_500
    with connection.cursor(name="scrolls", scrollable=True) as cursor:
        cursor.execute("SELECT g FROM generate_series(1, 100) AS g")
        cursor.scroll(50, mode="absolute")
        assert cursor.fetchone() == (51,)
        cursor.scroll(-2)
        assert cursor.fetchone() == (50,)
    connection.commit()
    with connection.cursor(name="held", withhold=True) as cursor:
        cursor.execute("SELECT owner FROM accounts")
        connection.commit()
        assert cursor.fetchall() == [("ann",)]

    with connection.pipeline():
        for number in range(20):
            connection.execute("INSERT INTO accounts (owner, balance) VALUES (%s, %s) ON CONFLICT (owner) DO UPDATE SET balance = accounts.balance + excluded.balance", (f"p{number % 10}", number))
    connection.commit()
    assert connection.execute("SELECT count(*), sum(balance) FROM accounts WHERE owner LIKE 'p%'").fetchone() == (10, 190)

# SQLAlchemy makes tables, inserts with RETURNING, reflects them, and streams.
engine = sa.create_engine(f"postgresql+psycopg://tester@127.0.0.1:{port}/test")
metadata = sa.MetaData()
users = sa.Table(
    "users", metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("email", sa.String(50), unique=True, nullable=False),
    sa.Column("age", sa.Integer, sa.CheckConstraint("age > 0", name="adult"), server_default="18"),
    sa.Column("joined", sa.DateTime, server_default=sa.func.now()),
)
metadata.create_all(engine)
with engine.begin() as connection:
    first = connection.execute(users.insert().values(email="a@x")).inserted_primary_key[0]
    connection.execute(users.insert(), [{"email": f"{number}@x", "age": number + 1} for number in range(50)])
    assert first == 1
    assert connection.scalar(sa.select(sa.func.count()).select_from(users)) == 51
    assert connection.scalar(sa.select(users.c.age).where(users.c.id == first)) == 18
    nested = connection.begin_nested()
    try:
        connection.execute(users.insert().values(email="a@x"))
        raise AssertionError("the key was taken twice")
    except sa.exc.IntegrityError:
        nested.rollback()
    rows = connection.execute(sa.select(users.c.email).order_by(users.c.id).limit(2).offset(1)).scalars().all()
    assert rows == ["0@x", "1@x"], rows
    streamed = connection.execution_options(stream_results=True).execute(sa.select(users.c.id))
    assert sum(1 for _ in streamed) == 51
inspector = sa.inspect(engine)
assert "users" in inspector.get_table_names()
assert inspector.get_pk_constraint("users") == {"constrained_columns": ["id"], "name": "users_pkey", "comment": None, "dialect_options": {}} \
    or inspector.get_pk_constraint("users")["constrained_columns"] == ["id"]
assert [unique["column_names"] for unique in inspector.get_unique_constraints("users")] == [["email"]]
assert [check["name"] for check in inspector.get_check_constraints("users")] == ["adult"]
assert inspector.get_foreign_keys("users") == []
columns = {column["name"]: column for column in inspector.get_columns("users")}
assert not columns["email"]["nullable"] and columns["email"]["type"].length == 50
assert "nextval" in columns["id"]["default"]
reflected = sa.Table("users", sa.MetaData(), autoload_with=engine)
assert [column.name for column in reflected.primary_key] == ["id"]
metadata.drop_all(engine)
assert "users" not in sa.inspect(engine).get_table_names()

print("all checks passed")
