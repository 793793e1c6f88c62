//! A real driver, tokio-postgres: prepared statements, binary parameters and results, portals, notices.

use futures::{StreamExt, TryStreamExt, future};
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};

use crate::mock::{self, Server};

pub(crate) async fn connect(server: &Server) -> Client {
    let config = format!("host=127.0.0.1 port={} user=anna", server.address.port());
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn simple_and_prepared_queries() {
    let server = mock::start().await;
    let client = connect(&server).await;
    let messages = client.simple_query("series 2; done CREATE TABLE").await.unwrap();
    let mut rows = Vec::new();
    for message in &messages {
        if let SimpleQueryMessage::Row(row) = message {
            rows.push(row.get(0).unwrap());
        }
    }
    assert_eq!(rows, ["0", "1"]);
    let rows = client.query("series 5000 100", &[]).await.unwrap();
    let sum: i32 = rows.iter().map(|row| row.get::<_, i32>(0)).sum();
    assert_eq!(sum, 4999 * 5000 / 2);
    assert_eq!(client.execute("done INSERT 0 3", &[]).await.unwrap(), 3);
}

#[tokio::test]
async fn binary_parameters_and_results() {
    let server = mock::start().await;
    let client = connect(&server).await;
    let statement = client
        .prepare("echo int2 int4 int8 float4 float8 bool text bytea _int4 _text oid")
        .await
        .unwrap();
    assert_eq!(statement.params()[8], Type::INT4_ARRAY);
    assert_eq!(statement.columns()[10].type_(), &Type::OID);
    let numbers = vec![Some(1), None, Some(3)];
    let words = vec!["a".to_owned(), "NULL".to_owned()];
    let row = client
        .query_one(
            &statement,
            &[
                &1_i16,
                &-2_i32,
                &3_i64,
                &1.5_f32,
                &-2.5_f64,
                &true,
                &"안녕",
                &b"\0\xff".to_vec(),
                &numbers,
                &words,
                &7_i64,
            ],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, i16>(0), 1);
    assert_eq!(row.get::<_, i32>(1), -2);
    assert_eq!(row.get::<_, i64>(2), 3);
    assert_eq!(row.get::<_, f32>(3), 1.5);
    assert_eq!(row.get::<_, f64>(4), -2.5);
    assert!(row.get::<_, bool>(5));
    assert_eq!(row.get::<_, &str>(6), "안녕");
    assert_eq!(row.get::<_, Vec<u8>>(7), b"\0\xff");
    assert_eq!(row.get::<_, Vec<Option<i32>>>(8), numbers);
    assert_eq!(row.get::<_, Vec<String>>(9), words);
    assert_eq!(row.get::<_, u32>(10), 7);
    let row = client.query_one("echo int4 text", &[&None::<i32>, &None::<&str>]).await.unwrap();
    assert_eq!(row.get::<_, Option<i32>>(0), None);
    assert_eq!(row.get::<_, Option<&str>>(1), None);
}

#[tokio::test]
async fn portals_within_a_transaction() {
    let server = mock::start().await;
    let mut client = connect(&server).await;
    let transaction = client.transaction().await;
    // The mock knows `begin` in lower case only, as every statement of its.
    drop(transaction);
    client.batch_execute("rollback; begin").await.unwrap();
    let rows: Vec<i32> = client
        .query_raw("series 10", Vec::<i32>::new())
        .await
        .unwrap()
        .map_ok(|row| row.get::<_, i32>(0))
        .try_collect()
        .await
        .unwrap();
    assert_eq!(rows, (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn notices_arrive_while_a_statement_runs() {
    let server = mock::start().await;
    let config = format!("host=127.0.0.1 port={} user=anna", server.address.port());
    let (client, mut connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    let (sender, mut notices) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages =
            futures::stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notice(notice) = message {
                let _ = sender.send(notice.message().to_owned());
            }
        }
    });
    let cancel = client.cancel_token();
    let statement = client.batch_execute("wait");
    let listener = async {
        for _ in 0..3 {
            assert_eq!(notices.recv().await.as_deref(), Some("still waiting"));
        }
        cancel.cancel_query(NoTls).await.unwrap();
    };
    let (result, ()) = future::join(statement, listener).await;
    assert_eq!(result.unwrap_err().code().unwrap().code(), "57014");
    client.batch_execute("done A").await.unwrap();
}

#[tokio::test]
async fn errors_carry_their_fields() {
    let server = mock::start().await;
    let client = connect(&server).await;
    let error = client.query("fail", &[]).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "42703");
    assert_eq!(error.detail(), Some("There is no x."));
    assert_eq!(error.hint(), Some("Take y."));
    assert_eq!(error.position(), Some(&tokio_postgres::error::ErrorPosition::Original(8)));
    client.query("series 1", &[]).await.unwrap();
}
