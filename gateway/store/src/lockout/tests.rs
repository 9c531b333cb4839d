// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::testing::{NOON, on_both};

const RULE: Backoff =
    Backoff { free: 5, first: Duration::MINUTE, longest: Duration::minutes(30), forget: Duration::DAY };

#[tokio::test]
async fn each_failure_beyond_the_free_ones_locks_twice_as_long() {
    on_both(async |b| {
        let store = b.open().await;
        for n in 1..=5 {
            assert_eq!(store.back_off("user", "ada", &RULE, NOON).await.unwrap(), Try::Counted(n));
        }
        let mut now = NOON;
        for minutes in [1, 2, 4, 8, 16, 30, 30] {
            let until = now + Duration::minutes(minutes);
            let early = until - Duration::MICROSECOND;
            assert_eq!(store.back_off("user", "ada", &RULE, now).await.unwrap(), Try::Locked(until));
            assert_eq!(store.back_off("user", "ada", &RULE, early).await.unwrap(), Try::Locked(until));
            assert_eq!(store.locked_until("user", "ada", &RULE, early).await.unwrap(), Some(until));
            assert_eq!(store.locked_until("user", "ada", &RULE, until).await.unwrap(), None);
            assert!(matches!(store.back_off("user", "ada", &RULE, until).await.unwrap(), Try::Counted(_)));
            now = until;
        }
        assert_eq!(store.back_off("user", "bob", &RULE, now).await.unwrap(), Try::Counted(1), "another subject");
        // a clock that is set back a year locks nobody for a year
        let back = now - Duration::days(365);
        assert_eq!(store.locked_until("user", "ada", &RULE, back).await.unwrap(), Some(back + RULE.longest));
        store.clear("user", "ada").await.unwrap();
        assert_eq!(store.locked_until("user", "ada", &RULE, now).await.unwrap(), None);
        assert_eq!(store.back_off("user", "ada", &RULE, now).await.unwrap(), Try::Counted(1));
        assert_eq!(store.back_off("user", "ada", &RULE, now + Duration::DAY).await.unwrap(), Try::Counted(1));
    })
    .await;
}

#[tokio::test]
async fn a_full_window_refuses_until_its_oldest_try_leaves_it() {
    on_both(async |b| {
        let store = b.open().await;
        let limits = [Limit { tries: 3, window: Duration::minutes(15) }, Limit { tries: 5, window: Duration::DAY }];
        let at = |m| NOON + Duration::minutes(m);
        for m in 0..3 {
            assert!(matches!(store.strike("totp", "ada", &limits, at(m)).await.unwrap(), Try::Counted(_)));
        }
        assert_eq!(store.strike("totp", "ada", &limits, at(14)).await.unwrap(), Try::Locked(at(15)));
        assert_eq!(store.strike("totp", "ada", &limits, at(15)).await.unwrap(), Try::Counted(4));
        assert_eq!(store.strike("totp", "ada", &limits, at(40)).await.unwrap(), Try::Counted(5));
        let day = at(24 * 60);
        assert_eq!(store.strike("totp", "ada", &limits, at(300)).await.unwrap(), Try::Locked(day));
        assert_eq!(store.struck_out("totp", "ada", &limits, at(300)).await.unwrap(), Some(day));
        assert_eq!(store.struck_out("totp", "ada", &limits, day).await.unwrap(), None);
        assert_eq!(store.strikes("totp", "ada", at(10)).await.unwrap(), 2);
        assert!(matches!(store.strike("totp", "ada", &limits, day).await.unwrap(), Try::Counted(_)));
        assert!(matches!(store.strike("totp", "bob", &limits, at(1)).await.unwrap(), Try::Counted(1)));
        assert!(matches!(store.strike("totp", "bob", &limits, at(1)).await.unwrap(), Try::Counted(2)));
        for left in [1, 0, 0] {
            store.forgive("totp", "bob", at(1)).await.unwrap();
            assert_eq!(store.strikes("totp", "bob", NOON).await.unwrap(), left);
        }
        store.drop_strikes(at(41)).await.unwrap();
        assert_eq!(store.strikes("totp", "ada", NOON).await.unwrap(), 1);
        store.clear("totp", "ada").await.unwrap();
        assert_eq!(store.strikes("totp", "ada", NOON).await.unwrap(), 0);
        let none = [Limit { tries: 0, window: Duration::MINUTE }];
        assert!(matches!(store.strike("never", "x", &none, NOON).await.unwrap(), Try::Locked(_)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_tries_at_once_pass_no_more_than_the_limit() {
    on_both(async |b| {
        let (one, two) = (b.open().await, b.open().await);
        let limits = [Limit { tries: 10, window: Duration::HOUR }];
        let mut trying = tokio::task::JoinSet::new();
        for n in 0..100 {
            let store = if n % 2 == 0 { one.clone() } else { two.clone() };
            trying.spawn(async move {
                let window = store.strike("totp", "ada", &limits, NOON).await.unwrap();
                let failures = store.back_off("user", "ada", &RULE, NOON).await.unwrap();
                (matches!(window, Try::Counted(_)), matches!(failures, Try::Counted(_)))
            });
        }
        let all = trying.join_all().await;
        assert_eq!(all.iter().filter(|t| t.0).count(), 10);
        assert_eq!(all.iter().filter(|t| t.1).count(), 5);
    })
    .await;
}
