import java.io.StringReader;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Array;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;

import org.postgresql.PGConnection;

/**
 * A session of PostgreSQL's JDBC driver: the tutorial with parameters, every statement that yields rows prepared, fetching in
 * portions, batches, transactions, COPY, cancelling, and what tools ask the driver's metadata for. Usage: JdbcSession PORT DIGITS
 */
public class JdbcSession {
    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static long number(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            check(rows.next(), "no row: " + sql);
            return rows.getLong(1);
        }
    }

    static String stateOf(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
            return "no error";
        } catch (SQLException error) {
            return error.getSQLState();
        }
    }

    static List<String> column(ResultSet rows, String name) throws SQLException {
        List<String> found = new ArrayList<>();
        while (rows.next()) {
            found.add(rows.getString(name));
        }
        rows.close();
        return found;
    }

    public static void main(String[] arguments) throws Exception {
        String port = arguments[0];
        String digits = arguments[1];
        Properties properties = new Properties();
        properties.setProperty("user", "tester");
        try (Connection connection = DriverManager.getConnection("jdbc:postgresql://127.0.0.1:" + port + "/test", properties)) {
            learn(connection, digits);
            search(connection, digits);
            rows(connection);
            transactions(connection);
            copies(connection);
            metadata(connection);
            edits(connection);
            cancel(connection);
        }
        System.out.println("all checks passed");
    }

    static void learn(Connection connection, String digits) throws SQLException {
        try (PreparedStatement copy = connection.prepareStatement("COPY d FROM ?")) {
            copy.setString(1, digits + "/digits_dataset.csv");
            copy.execute();
        }
        check(number(connection, "SELECT count(*) FROM d") == 60, "60 rows");
        try (PreparedStatement build = connection.prepareStatement(
                "BUILD MODEL m USING SimCLR OPTIONS (max_epochs=?, batch_size=16) AS SELECT * FROM d WHERE label < ?")) {
            build.setInt(1, 1);
            build.setInt(2, 100);
            build.execute();
            check(build.getWarnings() != null, "progress comes as warnings");
        }
        try (PreparedStatement create = connection.prepareStatement("CREATE TABLE e USING m FROM ?")) {
            create.setString(1, digits + "/train_data");
            create.execute();
        }
        check(number(connection, "SELECT count(*) FROM e") == 60, "a row a file");
        check("42710".equals(stateOf(connection, "BUILD MODEL m USING SimCLR AS SELECT * FROM d")), "a taken name");
    }

    static void search(Connection connection, String digits) throws Exception {
        String path = digits + "/train_data/7.jpg";
        String sql = "SELECT image, similarity_image1 FROM (SEARCH IMAGE images=? USING m AS SELECT * FROM e) ORDER BY 2 DESC LIMIT 3";
        try (PreparedStatement search = connection.prepareStatement(sql)) {
            // More often than the driver needs before it prepares on the server.
            for (int round = 0; round < 8; round++) {
                if (round % 2 == 0) {
                    search.setString(1, path);
                } else {
                    search.setBytes(1, Files.readAllBytes(Path.of(path)));
                }
                try (ResultSet rows = search.executeQuery()) {
                    check(rows.next() && rows.getString(1).equals(path), "the image itself is first");
                    check(Math.abs(rows.getDouble(2) - 1) < 1e-5, "with a similarity of 1");
                }
            }
        }
        String best = "SEARCH IMAGE USING m OPTIONS (search_by='image', search_input=?, top_k=?) AS SELECT * FROM e";
        try (PreparedStatement search = connection.prepareStatement(best)) {
            search.setString(1, path);
            search.setInt(2, 5);
            check(column(search.executeQuery(), "search_result").size() == 5, "five rows");
        }
        String convert = "SELECT img_path, filename, label, m_simclr FROM (CONVERT USING m AS SELECT * FROM e WHERE image = ?)";
        try (PreparedStatement statement = connection.prepareStatement(convert)) {
            statement.setString(1, path);
            ResultSet rows = statement.executeQuery();
            check(rows.next() && rows.getString("filename").equals("7.jpg"), "the file's name comes back");
            check(rows.getString("m_simclr").startsWith("["), "a vector is text to the driver");
            rows.close();
        }
        try (PreparedStatement print = connection.prepareStatement("PRINT IMAGE OPTIONS (limit=?) AS SELECT image FROM e")) {
            print.setInt(1, 2);
            ResultSet rows = print.executeQuery();
            check(rows.next() && rows.getBytes("image_bytes").length > 100, "the image's bytes");
            rows.close();
        }
        for (String list : new String[] {"LIST MODEL", "LIST TABLE", "LIST JOB", "SHOW JOBS", "SELECT * FROM thanosql.training_metrics"}) {
            try (PreparedStatement statement = connection.prepareStatement(list); ResultSet rows = statement.executeQuery()) {
                check(rows.next(), list + " yields rows");
            }
        }
    }

    static void rows(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute("CREATE TABLE n (a int8, b text, c float8, d date, e timestamptz, f numeric(12,3), g bytea, h bool)");
        }
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO n VALUES (?, ?, ?, ?, ?, ?, ?, ?)")) {
            for (int index = 0; index < 500; index++) {
                insert.setLong(1, index);
                insert.setString(2, index % 7 == 0 ? null : "가" + index);
                insert.setDouble(3, index / 4.0);
                insert.setDate(4, java.sql.Date.valueOf("2026-01-02"));
                insert.setTimestamp(5, java.sql.Timestamp.valueOf("2026-01-02 03:04:05.678"));
                insert.setBigDecimal(6, new java.math.BigDecimal("12.345"));
                insert.setBytes(7, new byte[] {0, (byte) 255});
                insert.setBoolean(8, index % 2 == 0);
                insert.addBatch();
            }
            check(insert.executeBatch().length == 500, "a batch");
        }
        check(number(connection, "SELECT count(b) FROM n") == 500 - 72, "NULLs are NULL");
        // In portions: a portal that is fetched from several times.
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(64);
            try (ResultSet rows = statement.executeQuery("SELECT * FROM n ORDER BY a")) {
                int count = 0;
                while (rows.next()) {
                    check(rows.getLong("a") == count && rows.getBytes("g").length == 2, "row " + count);
                    check(rows.getBigDecimal("f").toPlainString().equals("12.345"), "numeric");
                    check(rows.getTimestamp("e").equals(java.sql.Timestamp.valueOf("2026-01-02 03:04:05.678")), "timestamptz");
                    count++;
                }
                check(count == 500, "all rows");
            }
        }
        connection.commit();
        connection.setAutoCommit(true);
        try (PreparedStatement any = connection.prepareStatement("SELECT count(*) FROM n WHERE a = ANY(?)")) {
            Array array = connection.createArrayOf("int8", new Long[] {1L, 2L, 3L});
            any.setArray(1, array);
            ResultSet rows = any.executeQuery();
            check(rows.next() && rows.getLong(1) == 3, "an array as a parameter");
            rows.close();
        }
    }

    static void transactions(Connection connection) throws SQLException {
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            statement.executeUpdate("DELETE FROM n");
        }
        check(number(connection, "SELECT count(*) FROM n") == 0, "seen in the transaction");
        connection.rollback();
        check(number(connection, "SELECT count(*) FROM n") == 500, "rolled back");
        check("42P01".equals(stateOf(connection, "SELECT * FROM missing")), "a missing table");
        check("25P02".equals(stateOf(connection, "SELECT 1")), "the transaction has failed");
        connection.rollback();
        connection.setAutoCommit(true);
    }

    static void copies(Connection connection) throws Exception {
        var copy = connection.unwrap(PGConnection.class).getCopyAPI();
        long count = copy.copyIn("COPY n (a, b) FROM STDIN WITH (FORMAT csv)", new StringReader("1000,x\n1001,\"y,z\"\n"));
        check(count == 2, "two rows in");
        StringWriter out = new StringWriter();
        copy.copyOut("COPY (SELECT a, b FROM n WHERE a >= 1000 ORDER BY a) TO STDOUT WITH (FORMAT csv)", out);
        check(out.toString().equals("1000,x\n1001,\"y,z\"\n"), out.toString());
    }

    static void metadata(Connection connection) throws SQLException {
        DatabaseMetaData data = connection.getMetaData();
        check(data.getDatabaseProductName().equals("PostgreSQL"), "a product's name");
        List<String> tables = column(data.getTables(null, "public", "%", new String[] {"TABLE"}), "TABLE_NAME");
        check(tables.containsAll(List.of("d", "e", "n")), "tables: " + tables);
        List<String> columns = column(data.getColumns(null, "public", "d", "%"), "COLUMN_NAME");
        check(columns.equals(List.of("img_path", "filename", "label")), "columns: " + columns);
        check(column(data.getSchemas(), "TABLE_SCHEM").contains("public"), "schemas");
        check(column(data.getTypeInfo(), "TYPE_NAME").contains("int4"), "types");
        column(data.getPrimaryKeys(null, "public", "d"), "COLUMN_NAME");
        column(data.getTableTypes(), "TABLE_TYPE");
        column(data.getCatalogs(), "TABLE_CAT");
        column(data.getFunctions(null, null, "%"), "FUNCTION_NAME");
    }

    /** Rows that are changed where they are shown, which takes knowing whose columns they are. */
    static void edits(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute("CREATE TABLE edited (id integer PRIMARY KEY, name text, size double precision)");
            statement.execute("INSERT INTO edited VALUES (1, 'one', 1.5), (2, 'two', 2.5), (3, 'three', 3.5)");
        }
        try (Statement statement = connection.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE);
                ResultSet rows = statement.executeQuery("SELECT id, name, size FROM edited ORDER BY id")) {
            check(rows.getMetaData().getTableName(2).equals("edited"), "the table of a column: " + rows.getMetaData().getTableName(2));
            check(rows.next() && rows.next(), "two rows");
            rows.updateString("name", "zwei");
            rows.updateRow();
            check(rows.next(), "a third row");
            rows.deleteRow();
            rows.moveToInsertRow();
            rows.updateInt("id", 4);
            rows.updateString("name", "four");
            rows.insertRow();
        }
        try (PreparedStatement names = connection.prepareStatement("SELECT x.name AS shown, upper(name) AS computed FROM (SELECT * FROM edited WHERE id < 10) x ORDER BY id");
                ResultSet rows = names.executeQuery()) {
            var columns = rows.getMetaData().unwrap(org.postgresql.PGResultSetMetaData.class);
            check(columns.getBaseTableName(1).equals("edited") && columns.getBaseColumnName(1).equals("name"), "under another name, out of a subquery");
            check(columns.getBaseTableName(2).isEmpty(), "a computed column has no table");
            check(column(rows, "shown").equals(List.of("one", "zwei", "four")), "edited");
        }
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery("SELECT 1, id + 1, 3000000000 FROM edited LIMIT 1")) {
            check(rows.next() && rows.getObject(1) instanceof Integer && rows.getObject(2) instanceof Integer && rows.getObject(3) instanceof Long, "whole numbers");
        }
    }

    static void cancel(Connection connection) throws Exception {
        try (Statement statement = connection.createStatement()) {
            Thread canceller = new Thread(() -> {
                try {
                    Thread.sleep(700);
                    statement.cancel();
                } catch (Exception error) {
                    throw new RuntimeException(error);
                }
            });
            canceller.start();
            long began = System.nanoTime();
            String state = "no error";
            try {
                statement.execute("BUILD MODEL slow USING SimCLR OPTIONS (max_epochs=10000) AS SELECT * FROM d");
            } catch (SQLException error) {
                state = error.getSQLState();
            }
            canceller.join();
            check(state.equals("57014"), "cancelled: " + state);
            check(System.nanoTime() - began < 4_000_000_000L, "within two seconds or so");
        }
        check(number(connection, "SELECT count(*) FROM (LIST MODEL) WHERE name = 'slow'") == 0, "no model is left");
    }
}
