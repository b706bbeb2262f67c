//! Orders by hand.

use std::time::Duration;

use nitro_user::{
    control::{
        client::ClientError,
        protocol::{Code, End, Reply, Request},
        server::{Limits, Word},
        wire_path::WirePath,
    },
    engine::{input::Command as Order, order::Progress},
};
use tokio::{sync::watch, time::timeout};

use super::rig::Rig;

fn warm(path: &str) -> Request {
    Request::ByHand {
        command: Order::Warm,
        paths: vec![WirePath(path.into())],
    }
}

#[tokio::test]
async fn an_order_is_told_of_until_it_is_over() {
    let rig = Rig::new(Limits::default());
    let mut client = rig.client().await;
    client.ask(&warm("/models/a")).await.unwrap();
    while rig.order.lock().unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    for (done, over) in [(1, false), (2, true)] {
        let progress = Progress {
            done,
            over,
            ..Progress::default()
        };
        let tell = |order: &mut Option<watch::Sender<Word>>| {
            order.as_ref().unwrap().send_replace(Word::Progress(progress));
        };
        tell(&mut rig.order.lock().unwrap());
        assert_eq!(client.next().await.unwrap(), Reply::Progress(progress));
    }
    assert_eq!(client.next().await.unwrap(), Reply::End(End::Complete));
    // On the same connection the next one.
    client.ask(&warm("/nowhere")).await.unwrap();
    let error = client.next().await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Refused { refusal, .. } if refusal.code == Code::NotWatched),
        "{error}"
    );
}

#[tokio::test]
async fn an_order_ends_with_its_client() {
    let rig = Rig::new(Limits::default());
    let mut client = rig.client().await;
    client.ask(&warm("/models/a")).await.unwrap();
    while rig.order.lock().unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    drop(client);
    timeout(Duration::from_secs(10), async {
        while rig.order.lock().unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
}
