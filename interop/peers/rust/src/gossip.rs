//! Many messages of pubsub, for measurements: they are counted, not reported.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use libp2p::gossipsub::{IdentTopic, PublishError, TopicHash};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::node::Handle;

/// Messages published before the network behaviour gets its turn.
const BURST: u64 = 16;
/// Until a queue of the package has room again.
const BREATH: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Count {
    received: u64,
    /// When the last came, in seconds since 1970.
    last: f64,
}

/// Messages of each topic since somebody asked.
#[derive(Default)]
pub struct Counts {
    topics: Mutex<HashMap<TopicHash, Count>>,
    more: Notify,
}

impl Counts {
    pub fn add(&self, topic: TopicHash) {
        let mut topics = self.topics.lock().expect("nobody panics with it");
        let count = topics.entry(topic).or_default();
        count.received += 1;
        count.last = now();
        self.more.notify_one();
    }

    /// Waits until `total` came, or none for the time of `patience`, and begins from zero.
    pub async fn collect(&self, topic: &TopicHash, total: u64, patience: Duration) -> Value {
        while self.received(topic) < total {
            if tokio::time::timeout(patience, self.more.notified())
                .await
                .is_err()
            {
                break;
            }
        }
        let mut topics = self.topics.lock().expect("nobody panics with it");
        let count = topics.remove(topic).unwrap_or_default();
        json!({"received": count.received, "ended": count.last})
    }

    fn received(&self, topic: &TopicHash) -> u64 {
        let topics = self.topics.lock().expect("nobody panics with it");
        topics.get(topic).map_or(0, |count| count.received)
    }
}

/// Publishes `total` messages of `size` bytes, as fast as the package takes them without dropping any.
pub async fn publish_many(
    node: &Handle,
    topic: IdentTopic,
    total: u64,
    size: usize,
) -> Result<Value, String> {
    let started = now();
    let mut published = 0;
    while published < total {
        let (topic, wanted) = (topic.clone(), BURST.min(total - published));
        let taken = node.with(move |node| -> Result<u64, String> {
            let pubsub = node.pubsub()?;
            for taken in 0..wanted {
                match pubsub.publish(topic.clone(), vec![0; size]) {
                    Ok(_) => {}
                    Err(PublishError::AllQueuesFull(_)) => return Ok(taken),
                    Err(error) => return Err(error.to_string()),
                }
            }
            Ok(wanted)
        });
        let taken = taken.await??;
        published += taken;
        if taken < wanted {
            tokio::time::sleep(BREATH).await;
        }
    }
    Ok(json!({"started": started}))
}

fn now() -> f64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0.0, |elapsed| elapsed.as_secs_f64())
}
