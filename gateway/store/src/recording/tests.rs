// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::testing::{NOON, digest, on_both};
use time::Duration;
use uuid::Uuid;

#[tokio::test]
async fn a_recording_ends_once_and_is_found_by_machine_and_person() {
    on_both(async |b| {
        let store = b.open().await;
        let node = NodeId::new(Uuid::from_u128(1));
        let new = |n: u128| NewRecording {
            id: RecordingId::new(Uuid::from_u128(n)),
            machine: format!("lab/vm-{n}").parse().unwrap(),
            user: UserId::new(Uuid::from_u128(n)),
            user_name: "ada".into(),
            session: SessionId::new(Uuid::from_u128(7)),
            node,
            started_at: NOON + Duration::seconds(i64::try_from(n).unwrap()),
            sealed_key: b"sealed".to_vec(),
        };
        for n in 1..=3 {
            store.add_recording(&new(n)).await.unwrap();
        }
        assert!(matches!(store.add_recording(&new(1)).await, Err(Error::Conflict(_))));
        assert_eq!(store.open_recordings(node).await.unwrap().len(), 3);
        assert!(store.open_recordings(NodeId::new(Uuid::from_u128(2))).await.unwrap().is_empty());
        let end = RecordingEnd { at: NOON, bytes: 9, chunks: 2, head: Some(digest(4)), ending: "closed".into() };
        assert!(store.end_recording(new(1).id, &end).await.unwrap());
        assert!(!store.end_recording(new(1).id, &RecordingEnd { bytes: 1, ..end }).await.unwrap());
        let one = store.recording(new(1).id).await.unwrap().unwrap();
        assert_eq!((one.bytes, one.chunks, one.head, one.ended_at), (9, 2, Some(digest(4)), Some(NOON)));
        assert_eq!(one.sealed_key, b"sealed");
        assert_eq!(store.open_recordings(node).await.unwrap().len(), 2);

        let list = async |f: RecordingFilter, limit| {
            store.recordings(&f, limit).await.unwrap().into_iter().map(|r| r.id).collect::<Vec<_>>()
        };
        let id = |n| new(n).id;
        assert_eq!(list(RecordingFilter::default(), 2).await, [id(3), id(2)]);
        let before = Some(NOON + Duration::seconds(2));
        assert_eq!(list(RecordingFilter { before, ..Default::default() }, 9).await, [id(1)]);
        let machine = Some("lab/vm-2".parse().unwrap());
        assert_eq!(list(RecordingFilter { machine, ..Default::default() }, 9).await, [id(2)]);
        let user = Some(UserId::new(Uuid::from_u128(3)));
        assert_eq!(list(RecordingFilter { user, ..Default::default() }, 9).await, [id(3)]);
    })
    .await;
}
