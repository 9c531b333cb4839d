// SPDX-License-Identifier: Apache-2.0

use super::*;
use proptest::prelude::*;

fn xml(inside: &str) -> String {
    format!(
        "<?xml version='1.0'?>\n<methodCall>\n<methodName>VM.start</methodName>\n<params>\n{inside}</params>\n</methodCall>\n"
    )
}

fn param(value: &str) -> String {
    format!("<param>\n<value>{value}</value>\n</param>\n")
}

#[test]
fn a_call_is_sent_as_it_was_understood_with_our_session() {
    let session = param("<string>OpaqueRef:theirs</string>");
    let more = [
        "<string>a &lt; b &amp; &#x263a;</string>",
        "plain",
        "<boolean>1</boolean>",
        "<i4>-7</i4>",
        "<double>1.5</double>",
        "<dateTime.iso8601>20261128T19:00:00Z</dateTime.iso8601>",
        "<array><data><value/><value><nil/></value></data></array>",
        "<struct><member><name>k</name><value><string></string></value></member></struct>",
    ];
    let body = xml(&[session, more.map(param).concat()].concat());
    let call = Call::read(Wire::Xml, Some("text/xml"), body.as_bytes()).unwrap();
    assert_eq!((&*call.method, call.session()), ("VM.start", Some("OpaqueRef:theirs")));
    assert_eq!(call.args()[0], Value::from_text("a < b & \u{263a}"));
    assert_eq!(call.args()[6], Value::List(vec![Value::from_text(""), Value::Nil]));
    let sent = call.hollow().filled("OpaqueRef:ours").unwrap();
    let again = Call::read(Wire::Xml, Some("text/xml"), &sent).unwrap();
    assert_eq!((again.session(), again.args()), (Some("OpaqueRef:ours"), call.args()));
    assert!(!String::from_utf8(sent.clone()).unwrap().contains("theirs"));

    let body = br#"{"jsonrpc":"2.0","id":"a\"b","method":"VM.start","params":["OpaqueRef:theirs",{"k":[1,-2.5,true,null,"\u0007\\"]}]}"#;
    let call = Call::read(Wire::Json, Some("application/json; charset=utf-8"), body).unwrap();
    let sent = call.hollow().filled("OpaqueRef:ours").unwrap();
    let again = Call::read(Wire::Json, Some("application/json"), &sent).unwrap();
    assert_eq!((again.session(), again.args()), (Some("OpaqueRef:ours"), call.args()));
    assert_eq!(call.caller(), again.caller());
    // A session that is more than one is not filled in.
    for bad in ["", "a\"b", "a</string>", "a b", "a\n"] {
        assert!(call.hollow().filled(bad).is_none(), "{bad:?}");
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let good = xml(&param("x"));
    assert!(Call::read(Wire::Xml, None, good.as_bytes()).is_ok());
    let twice = "<struct><member><name>VM</name><value>a</value></member><member><name>VM</name><value>b</value></member></struct>";
    let deep = format!("{}{}", "<array><data><value>".repeat(40), "</value></data></array>".repeat(40));
    for bad in [
        String::new(),
        "<methodCall>".to_owned(),
        format!("<!DOCTYPE methodCall [<!ENTITY x SYSTEM \"file:///etc/passwd\">]>{good}"),
        good.replace("<?xml version='1.0'?>", "<?xml version='1.0' encoding='utf-16'?>"),
        good.replace("<methodCall>", "<methodCall><!-- x -->"),
        good.replace("VM.start", "<![CDATA[VM.start]]>"),
        good.replace("VM.start", "VM.start</methodName><methodName>VM.destroy"),
        good.replace("VM.start", "VM start"),
        good.replace("VM.start", ""),
        good.replace("<params>", "<params a='b'>"),
        format!("{good}<methodCall/>"),
        good.repeat(2),
        xml(&param("x<string>y</string>")),
        xml(&param("<string>x</string>y")),
        xml(&param("<string>x</string><string>y</string>")),
        xml(&param("<base64>AAAA</base64>")),
        xml(&param("<i4>007</i4>")),
        xml(&param("<i4> 7</i4>")),
        xml(&param("<i4>+7</i4>")),
        xml(&param("<i4>99999999999999999999</i4>")),
        xml(&param("<double>nan</double>")),
        xml(&param("<double>1e999</double>")),
        xml(&param("<boolean>true</boolean>")),
        xml(&param("&xxe;")),
        xml(&param("&#0;")),
        xml(&param("&#xd800;")),
        xml(&param("a & b")),
        xml(&param("\u{1}")),
        xml(&param(twice)),
        xml(&param(&deep)),
        xml(&param("x").repeat(65)),
    ] {
        assert!(Call::read(Wire::Xml, Some("text/xml"), bad.as_bytes()).is_err(), "{bad}");
    }
    let json = r#"{"jsonrpc":"2.0","method":"VM.start","params":["s",{"a":1}],"id":1}"#;
    assert!(Call::read(Wire::Json, Some("application/json"), json.as_bytes()).is_ok());
    for bad in [
        format!("[{json}]"),
        format!("{json}{json}"),
        json.replace("2.0", "1.0"),
        json.replace("\"jsonrpc\":\"2.0\",", ""),
        json.replace(",\"id\":1", ""),
        json.replace("\"id\":1", "\"id\":null"),
        json.replace("\"id\":1", "\"id\":1,\"id\":2"),
        json.replace("\"id\":1", "\"id\":1,\"method\":\"VM.destroy\""),
        json.replace("\"id\":1", "\"id\":1,\"extra\":2"),
        json.replace("\"id\":1", "\"id\":1.5"),
        json.replace("{\"a\":1}", "{\"a\":1,\"a\":2}"),
        json.replace("{\"a\":1}", "{\"a\":1,\"\\u0061\":2}"),
        json.replace("{\"a\":1}", "9007199254740993"),
        json.replace("{\"a\":1}", "99999999999999999999"),
        json.replace("{\"a\":1}", "1e400"),
        json.replace("{\"a\":1}", "NaN"),
        json.replace("[\"s\",{\"a\":1}]", "{\"session\":\"s\"}"),
        json.replace("VM.start", "VM.start\\u0000"),
        format!("{}{}", "[".repeat(200), "]".repeat(200)),
    ] {
        assert!(Call::read(Wire::Json, Some("application/json"), bad.as_bytes()).is_err(), "{bad}");
    }
    for (wire, media_type, body) in [
        (Wire::Json, None, json),
        (Wire::Json, Some("text/plain"), json),
        (Wire::Json, Some("application/json; charset=utf-16"), json),
        (Wire::Xml, Some("application/json"), &*good),
        (Wire::Xml, Some("text/plain"), &*good),
    ] {
        assert!(Call::read(wire, media_type, body.as_bytes()).is_err(), "{media_type:?}");
    }
    assert!(Call::read(Wire::Xml, None, &vec![b' '; MAX_CALL + 1]).is_err());
    assert!(Call::read(Wire::Xml, None, b"\xff").is_err());
}

#[test]
fn an_answer_survives_in_either_way_of_writing() {
    let value = Value::Map(vec![(
        "a<".into(),
        Value::List(vec![Value::Int(-3), Value::Bool(false), Value::from_text("x&\r\"")]),
    )]);
    for wire in [Wire::Xml, Wire::Json] {
        let to = Caller { wire, id: "7".into() };
        for reply in [Reply::Done(value.clone()), Reply::Failed(vec!["SESSION_INVALID".into(), "OpaqueRef:x".into()])] {
            assert_eq!(Reply::read(wire, &reply.write(&to)), Some(reply));
        }
        for bad in [&b""[..], b"{}", b"<methodResponse/>", b"[]", b"\xff"] {
            assert_eq!(Reply::read(wire, bad), None);
        }
    }
}

fn values() -> impl Strategy<Value = Value<'static>> {
    let text = "[^\u{0}-\u{8}\u{b}\u{c}\u{e}-\u{1f}\u{fffe}\u{ffff}]{0,12}".prop_map(|t| Value::Text(t.into()));
    let leaf = prop_oneof![
        text,
        (-MAX_EXACT..MAX_EXACT).prop_map(Value::Int),
        any::<bool>().prop_map(Value::Bool),
        Just(Value::Nil)
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
            prop::collection::btree_map("[a-z<&]{0,6}", inner, 0..4)
                .prop_map(|m| Value::Map(m.into_iter().map(|(k, v)| (k.into(), v)).collect())),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_is_sent_reads_as_what_was_decided_on(args in prop::collection::vec(values(), 0..4)) {
        for wire in [Wire::Xml, Wire::Json] {
            let sent = own_call(wire, "VM.start", &args).filled("OpaqueRef:s").unwrap();
            let call = Call::read(wire, Some(wire.media_type()), &sent).unwrap();
            prop_assert_eq!(call.args(), &args[..]);
            prop_assert_eq!(call.session(), Some("OpaqueRef:s"));
        }
    }

    #[test]
    fn no_bytes_make_it_fail_otherwise_than_by_a_word(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..300usize) {
        let mut body = xml(&param("<struct><member><name>k</name><value>x</value></member></struct>")).into_bytes();
        let at = at.min(body.len());
        body.splice(at..at, bytes);
        let _ = Call::read(Wire::Xml, None, &body);
        let _ = Reply::read(Wire::Xml, &body);
        let _ = Reply::read(Wire::Json, &body);
    }
}
