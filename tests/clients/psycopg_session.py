"""A session of psycopg 3: the tutorial with parameters, COPY, and stopping a training. Usage: psycopg_session.py PORT DIGITS"""

import sys
import threading
import time

import psycopg

port, digits = sys.argv[1], sys.argv[2]
address = f"host=127.0.0.1 port={port} user=tester dbname=test"

with psycopg.connect(address, autocommit=True) as connection:
    notices = []
    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    connection.execute(f"COPY d FROM '{digits}/digits_dataset.csv'")
    assert connection.execute("SELECT count(*) FROM d WHERE label >= %s", (0,)).fetchone() == (400,)

    connection.execute("BUILD MODEL m USING SimCLR OPTIONS (max_epochs=1) AS SELECT * FROM d")
    assert any("epoch 1/1" in notice for notice in notices), notices

    connection.execute(f"CREATE TABLE e USING m FROM '{digits}/train_data'")
    path = f"{digits}/train_data/7.jpg"
    search = "SELECT image, similarity_image1 FROM (SEARCH IMAGE images=%s USING m AS SELECT * FROM e) ORDER BY 2 DESC LIMIT 3"
    by_path = connection.execute(search, (path,)).fetchall()
    assert by_path[0][0] == path and abs(by_path[0][1] - 1) < 1e-5, by_path
    with open(path, "rb") as file:
        image = file.read()
    by_bytes = connection.execute(search, (image,)).fetchall()
    assert by_bytes == by_path, (by_bytes, by_path)
    # After five runs psycopg prepares a statement.
    for _ in range(7):
        assert connection.execute(search, (path,)).fetchall() == by_path
    # An array of images makes a column each; psycopg asks for columns after it has bound them. In binary (%b) it says that a list of strings is text[].
    several = "SELECT image, similarity_image1, similarity_image2 FROM (SEARCH IMAGE images=%b USING m AS SELECT * FROM e) ORDER BY 3 DESC LIMIT 1"
    for images in ([f"{digits}/train_data/8.jpg", path], [image, image]):
        found = connection.execute(several, (images,)).fetchone()
        assert found[0] == path and abs(found[2] - 1) < 1e-5, found
    nearest = "SELECT e.image FROM e ORDER BY m_simclr <=> %s::vector LIMIT 1"
    (vector,) = connection.execute("SELECT m_simclr::text FROM e WHERE image = %s", (path,)).fetchone()
    assert connection.execute(nearest, (vector,)).fetchone() == (path,)
    binary = connection.cursor(binary=True).execute(search, (path,)).fetchall()
    assert binary == by_path, binary
    printed = connection.execute("PRINT IMAGE OPTIONS (limit=1) AS SELECT image FROM e WHERE image = %s", (path,)).fetchone()
    assert image in [bytes(value) for value in printed if isinstance(value, (bytes, memoryview))], printed

    # Types there and back, as text and in binary.
    import datetime
    import decimal
    import uuid

    row = (True, 7, 2**40, 1.5, "가나다", b"\x00\xff", datetime.date(2026, 1, 2),
           datetime.datetime(2026, 1, 2, 3, 4, 5, 678901), decimal.Decimal("12.34"), uuid.UUID(int=5))
    connection.execute("CREATE TABLE kinds (a bool, b int4, c int8, d float8, e text, f bytea, g date, h timestamp, i numeric(10,2), j uuid)")
    connection.execute("INSERT INTO kinds VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)", row)
    for binary in (False, True):
        found = connection.cursor(binary=binary).execute("SELECT * FROM kinds").fetchone()
        assert found == row, (binary, found)

    # COPY both ways.
    connection.execute("CREATE TABLE copied (a int8, b text)")
    with connection.cursor().copy("COPY copied FROM STDIN") as copy:
        for number in range(10_000):
            copy.write_row((number, None if number % 7 == 0 else f"row\t{number}\n"))
    assert connection.execute("SELECT count(*), count(b) FROM copied").fetchone() == (10_000, 10_000 - 1_429)
    with connection.cursor().copy("COPY (SELECT a, b FROM copied ORDER BY a LIMIT 3) TO STDOUT") as copy:
        rows = list(copy.rows())
    assert rows == [("0", None), ("1", "row\t1\n"), ("2", "row\t2\n")], rows

    # Transactions.
    with connection.transaction():
        connection.execute("INSERT INTO copied VALUES (-1, 'inside')")
    try:
        with connection.transaction():
            connection.execute("INSERT INTO copied VALUES (-2, 'lost')")
            raise RuntimeError("roll back")
    except RuntimeError:
        pass
    assert connection.execute("SELECT count(*) FROM copied WHERE a < 0").fetchone() == (1,)

    # CancelRequest stops a training within two seconds.
    cancelled_at = []

    def cancel():
        time.sleep(1)
        cancelled_at.append(time.monotonic())
        connection.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        connection.execute("BUILD MODEL long USING SimCLR OPTIONS (max_epochs=1000) AS SELECT * FROM d")
        raise AssertionError("the training was not stopped")
    except psycopg.errors.QueryCanceled:
        waited = time.monotonic() - cancelled_at[0]
    thread.join()
    assert waited < 2, waited
    assert connection.execute("SELECT count(*) FROM thanosql.models WHERE name = 'long'").fetchone() == (0,)

    # statement_timeout, too.
    connection.execute("SET statement_timeout = '300ms'")
    try:
        connection.execute("BUILD MODEL long USING SimCLR OPTIONS (max_epochs=1000) AS SELECT * FROM d")
        raise AssertionError("the training did not time out")
    except psycopg.errors.QueryCanceled as error:
        assert "timeout" in str(error), error

print("all checks passed")
