// SPDX-License-Identifier: Apache-2.0
use super::*;
use portcullis_domain::{AccessId, GrantId, Selector, UserId};
use time::{Duration, macros::datetime};
use uuid::Uuid;

const NOON: OffsetDateTime = datetime!(2026-11-28 12:00 UTC);
const ORIGIN: &str = "https://console.example.org";

fn news(what: Happens, state: AccessState) -> News {
    let id = AccessId::new(Uuid::from_u128(7));
    News {
        at: NOON,
        request: AccessRequest {
            id,
            user: UserId::new(Uuid::from_u128(1)),
            role: "console-user".parse().unwrap(),
            selector: Selector::Tag("web".into()),
            reason: "INC-7: it hangs.\nSince noon.".into(),
            seconds: 3_600,
            start: None,
            asked: NOON,
            state,
            changed: NOON,
        },
        what,
        asker: "kim".into(),
        by: "olga".into(),
        words: "go ahead".into(),
        link: format!("{ORIGIN}/requests/{id}"),
    }
}

fn asked() -> AccessState {
    AccessState::Asked(NOON + Duration::DAY)
}

#[test]
fn whoever_decides_reads_who_asks_for_what_why_and_where() {
    let (subject, text) = to_decide(&news(Happens::Step(StepWhat::Asked), asked()), ORIGIN);
    assert_eq!(subject, "kim asks to act as console-user on tag web");
    assert_eq!(
        text,
        "kim asks to act as console-user on tag web, for 1 hour.\n\nWhy: INC-7: it hangs.\nSince noon.\n\n\
         Look at it and decide:\nhttps://console.example.org/requests/00000000000000000000000000000007\n\n-- \n\
         You get this because you may decide on it. Letters of this gateway lead to https://console.example.org only.\n"
    );
    let mut one = news(Happens::Step(StepWhat::Asked), asked());
    one.request.role = "machine/power".parse().unwrap();
    one.request.start = Some(NOON + Duration::DAY);
    let (subject, text) = to_decide(&one, ORIGIN);
    assert_eq!(subject, "kim asks to switch its power on tag web");
    assert!(text.contains("for 1 hour, from 2026-11-29 12:00 UTC."), "{text}");
}

#[test]
fn whoever_asked_reads_what_came_of_it_at_each_step() {
    let active = AccessState::Active(GrantId::new(Uuid::from_u128(9)), NOON + Duration::HOUR);
    for (what, state, subject, said) in [
        (
            Happens::Step(StepWhat::Approved),
            asked(),
            "Approved: ",
            "olga approved that you may act as console-user on tag",
        ),
        (Happens::Step(StepWhat::Refused), AccessState::Refused, "Refused: ", "olga refused that you may act as"),
        (Happens::Step(StepWhat::Expired), AccessState::Expired, "Out of time: ", "Nobody decided in time whether you"),
        (
            Happens::Step(StepWhat::Active),
            active,
            "Begun: ",
            "You may act as console-user on tag web until 2026-11-28 13:00 UTC.",
        ),
        (Happens::Ending, active, "Ends soon: ", "until 2026-11-28 13:00 UTC. What is open then is cut."),
        (Happens::Step(StepWhat::Over), active, "Over: ", "The time is over in which you could act as console-user"),
        (Happens::Step(StepWhat::Ended), active, "Ended: ", "olga ended before its time that you may act as"),
    ] {
        let (title, text) = to_asker(&news(what, state), ORIGIN).expect("a letter");
        assert_eq!(title, format!("{subject}act as console-user on tag web"), "{what:?}");
        assert!(text.contains(said), "{what:?}: {text}");
        assert!(
            text.contains("\n\nolga wrote: go ahead\n\nThe request:\nhttps://console.example.org/requests/"),
            "{text}"
        );
        assert_eq!(text.matches("://").count(), 2, "{text}");
    }
    for what in [StepWhat::Asked, StepWhat::Withdrawn] {
        assert!(to_asker(&news(Happens::Step(what), asked()), ORIGIN).is_none());
    }
}

#[test]
fn what_people_wrote_leads_nowhere() {
    let evil =
        "see https://evil.example/x or HTTP://evil.example, www.evil.example/y, eve@evil.example\u{202e}\r\nBcc: x";
    let mut one = news(Happens::Step(StepWhat::Asked), asked());
    one.request.reason = evil.into();
    one.request.selector = Selector::Tag(evil.replace("\r\n", " "));
    one.asker = "eve.example".into();
    let (subject, text) = to_decide(&one, ORIGIN);
    assert!(
        !subject.contains(['\r', '\n', '@']) && !subject.contains("://") && !subject.contains("evil.e"),
        "{subject}"
    );
    assert_eq!(text.matches("://").count(), 2, "ours alone: {text}");
    assert!(!text.contains("evil.example") && !text.contains("eve.example") && !text.contains('@'), "{text}");
    assert!(text.contains("www[.]evil[.]example/y") && text.contains("https[:]//evil[.]example/x"), "{text}");
    assert!(!text.contains(['\u{202e}', '\r']), "{text}");
    one.words = evil.into();
    one.by = evil.replace("\r\n", " ");
    one.what = Happens::Step(StepWhat::Refused);
    let (_, text) = to_asker(&one, ORIGIN).unwrap();
    assert_eq!(text.matches("://").count(), 2, "{text}");
    assert_eq!(tame("v1.2 of 10.0.0.1. And so on."), "v1[.]2 of 10[.]0[.]0[.]1. And so on.");
    assert_eq!(tame(&"x".repeat(9_000)).chars().count(), PIECE);
}
