// SPDX-License-Identifier: Apache-2.0
//! What goes out of answers.

use super::*;

fn root(inner: &str) -> Element {
    let text = format!(
        "<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/' xmlns:i='http://www.w3.org/2001/XMLSchema-instance'
          xmlns:s='http://www.w3.org/2001/XMLSchema'><e:Header><x xmlns='urn:vim25'>header</x></e:Header>
         <e:Body>{inner}</e:Body></e:Envelope>"
    );
    Element::read(&text, 1000).unwrap()
}

fn call(method: &str, this: (&str, &str), arguments: Vec<Element>) -> Call {
    Call { method: method.to_owned(), this: Reference { of: this.0.to_owned(), id: this.1.to_owned() }, arguments }
}

fn part() -> Sight {
    let set = |ids: &[&str]| ids.iter().map(|i| (*i).to_owned()).collect();
    Sight::Part {
        machines: set(&["vm-1"]),
        places: set(&["group-v5", "resgroup-9", "host-11", "snapshot-3"]),
        tasks: set(&["task-1"]),
    }
}

fn kept(method: &str, inner: &str, sight: &Sight) -> String {
    let mut root = root(inner);
    keep(&mut root, &call(method, ("PropertyCollector", "pc"), Vec::new()), sight).unwrap();
    root.document()
}

fn object(of: &str, id: &str, properties: &[(&str, &str)]) -> String {
    let each = |(name, val): &(&str, &str)| format!("<propSet><name>{name}</name>{val}</propSet>");
    let all: String = properties.iter().map(each).collect();
    format!("<objects><obj type='{of}'>{id}</obj>{all}</objects>")
}

fn page(objects: &[String]) -> String {
    format!(
        "<RetrievePropertiesExResponse xmlns='urn:vim25'><returnval><token>t1</token>{}</returnval>
         </RetrievePropertiesExResponse>",
        objects.concat()
    )
}

#[test]
fn a_list_holds_what_may_be_seen_and_of_the_rest_no_more_than_the_name() {
    let vms = "<val><ManagedObjectReference type='VirtualMachine'>vm-1</ManagedObjectReference>
               <ManagedObjectReference type='VirtualMachine'>vm-2</ManagedObjectReference></val>";
    let text = kept(
        "RetrievePropertiesEx",
        &page(&[
            object(
                "VirtualMachine",
                "vm-1",
                &[
                    ("name", "<val>web</val>"),
                    ("permission", "<val>hidden-permission</val>"),
                    ("parent", "<val type='Folder'>group-v5</val>"),
                    ("parentVApp", "<val type='VirtualApp'>resgroup-v66</val>"),
                    (
                        "config.extraConfig",
                        "<val><OptionValue><key>RemoteDisplay.vnc.password</key><value>hidden-vnc</value>
                  </OptionValue><OptionValue><key>svga.present</key><value>TRUE</value></OptionValue></val>",
                    ),
                ],
            ),
            object("VirtualMachine", "vm-2", &[("name", "<val>hidden-payroll</val>")]),
            object("Folder", "group-v5", &[("name", "<val>blue</val>"), ("permission", "<val>hidden-acl</val>")]),
            object("Folder", "group-v6", &[("name", "<val>hidden-red</val>")]),
            object("ResourcePool", "resgroup-9", &[("vm", vms), ("config", "<val>hidden-config</val>")]),
            object("HostSystem", "host-11", &[("name", "<val>esx1</val>"), ("config.host", "<val>hidden-host</val>")]),
            object("Datastore", "datastore-4", &[("name", "<val>hidden-datastore</val>")]),
            object("SessionManager", "SessionManager", &[("sessionList", "<val>hidden-sessions</val>")]),
            object("VirtualMachineSnapshot", "snapshot-3", &[("config", "<val>snap</val>")]),
            object("VirtualMachineSnapshot", "snapshot-4", &[("config", "<val>hidden-snap</val>")]),
            object("Task", "task-1", &[("info.result", "<val type='VirtualMachine'>vm-77</val>")]),
            object("Task", "task-2", &[("info.entityName", "<val>hidden-task</val>")]),
            object("Unheard", "vm-2", &[("name", "<val>hidden-odd</val>")]),
            object("EventManager", "em", &[("latestEvent", "<val>hidden-event</val>")]),
        ]),
        &part(),
    );
    assert!(!text.contains("hidden") && !text.contains("header"), "{text}");
    for shown in ["web", "blue", "esx1", ">vm-1<", ">vm-77<", "snap", "svga.present", "<token>t1</token>", "group-v5"] {
        assert!(text.contains(shown), "{shown}: {text}");
    }
    for absent in [">vm-2<", "resgroup-v66", "group-v6"] {
        assert!(!text.contains(absent), "{absent}: {text}");
    }
}

#[test]
fn updates_of_what_may_not_be_seen_are_none() {
    let update = |of: &str, id: &str| {
        format!(
            "<objectSet><kind>enter</kind><obj type='{of}'>{id}</obj><changeSet><name>name</name><op>assign</op>
             <val i:type='s:string'>name-of-{id}</val></changeSet></objectSet>"
        )
    };
    let filter = |id: &str, objects: &[String]| {
        format!("<filterSet><filter type='PropertyFilter'>{id}</filter>{}</filterSet>", objects.concat())
    };
    let inner = format!(
        "<WaitForUpdatesExResponse xmlns='urn:vim25'><returnval><version>2</version>{}{}</returnval>
         </WaitForUpdatesExResponse>",
        filter("f1", &[update("VirtualMachine", "vm-1"), update("VirtualMachine", "vm-2")]),
        filter(
            "f2",
            &[
                update("VirtualMachine", "vm-2"),
                "<objectSet><kind>leave</kind><obj type='VirtualMachine'>vm-3</obj></objectSet>".to_owned()
            ]
        ),
    );
    let text = kept("WaitForUpdatesEx", &inner, &part());
    assert!(text.contains("name-of-vm-1") && text.contains("<version>2</version>") && text.contains(">f1<"));
    assert!(!text.contains("vm-2") && !text.contains("vm-3") && !text.contains(">f2<"), "{text}");
    let whole = kept("WaitForUpdatesEx", &inner, &Sight::Whole);
    assert!(whole.contains("name-of-vm-2") && whole.contains("vm-3"));
}

#[test]
fn one_property_is_shown_like_one_in_a_list() {
    let fetch = |this: (&str, &str), property: &str, value: &str| {
        let mut root = root(&format!("<FetchResponse xmlns='urn:vim25'>{value}</FetchResponse>"));
        let arguments = vec![Element::text("prop", property)];
        keep(&mut root, &call("Fetch", this, arguments), &part()).unwrap();
        root.document().contains("returnval")
    };
    let text = "<returnval i:type='s:string'>x</returnval>";
    assert!(fetch(("VirtualMachine", "vm-1"), "name", text));
    assert!(fetch(("Folder", "group-v5"), "name", text));
    assert!(fetch(("ServiceInstance", "ServiceInstance"), "content", text));
    for (this, property) in [
        (("VirtualMachine", "vm-2"), "name"),
        (("VirtualMachine", "vm-1"), "permission"),
        (("Folder", "group-v6"), "name"),
        (("Folder", "group-v5"), "permission"),
        (("HostSystem", "host-11"), "config"),
        (("SessionManager", "SessionManager"), "currentSession"),
        (("HostNetworkSystem", "networkSystem-11"), "networkInfo"),
        (("Unheard", "vm-2"), "name"),
    ] {
        assert!(!fetch(this, property, text), "{this:?} {property}");
    }
    assert!(!fetch(("VirtualMachine", "vm-1"), "parent", "<returnval type='Folder'>group-v6</returnval>"));
    assert!(!fetch(("ResourcePool", "resgroup-9"), "vm", "<returnval type='VirtualMachine'>vm-2</returnval>"));
}

#[test]
fn a_name_that_leads_to_something_hidden_leads_nowhere() {
    let found = |of: &str, id: &str| {
        let inner = format!(
            "<FindByUuidResponse xmlns='urn:vim25'><returnval type='{of}'>{id}</returnval></FindByUuidResponse>"
        );
        kept("FindByUuid", &inner, &part()).contains("returnval")
    };
    assert!(found("VirtualMachine", "vm-1") && found("Folder", "group-v5"));
    assert!(!found("VirtualMachine", "vm-2") && !found("Folder", "group-v6") && !found("Task", "task-2"));
    let fault = "<e:Fault><faultcode>S</faultcode><faultstring>x</faultstring><detail>
        <InvalidStateFault xmlns='urn:vim25' i:type='InvalidState'><obj type='VirtualMachine'>vm-2</obj></InvalidStateFault>
        </detail></e:Fault>";
    let text = kept("PowerOnVM_Task", fault, &part());
    assert!(text.contains("InvalidState") && !text.contains("vm-2"), "{text}");
}

#[test]
fn secrets_go_out_to_nobody() {
    for secret in [
        "<returnval i:type='VirtualMachineTicket'><ticket>hidden</ticket></returnval>",
        "<returnval><spec><password>hidden</password></spec></returnval>",
        "<returnval i:type='UserSession'><key>hidden</key><userName>gateway</userName></returnval>",
        "<returnval><objects><obj type='SessionManager'>s</obj><propSet><name>currentSession.key</name><val>hidden</val>
         </propSet></objects></returnval>",
        "<returnval><objects><obj type='SessionManager'>s</obj><propSet><name>sessionList</name><val>
         <UserSession><key>hidden</key></UserSession></val></propSet></objects></returnval>",
        "<returnval><property><id>db</id><type>password(8..)</type><value>hidden</value></property></returnval>",
        "<returnval><extraConfig><key>guestinfo.userdata</key><value>hidden</value></extraConfig></returnval>",
        "<returnval i:type='OptionValue'><key>x</key></returnval><returnval><value><key>guestinfo.db.Password</key>
         <value>hidden</value></value></returnval>",
    ] {
        let inner = format!("<AnyResponse xmlns='urn:vim25'>{secret}</AnyResponse>");
        let text = kept("Any", &inner, &Sight::Whole);
        assert!(!text.contains("hidden"), "{text}");
    }
    // Asked for by its path, alone or twice.
    for properties in [
        &["config.extraConfig[\"RemoteDisplay.vnc.password\"].value"][..],
        &["name", "config.extraConfig"],
        &[],
        &["currentSession.key"],
    ] {
        let mut root = root("<FetchResponse xmlns='urn:vim25'><returnval>hidden</returnval></FetchResponse>");
        let arguments = properties.iter().map(|p| Element::text("prop", p)).collect();
        keep(&mut root, &call("Fetch", ("VirtualMachine", "vm-1"), arguments), &Sight::Whole).unwrap();
        assert!(!root.document().contains("hidden"), "{properties:?}");
    }
    let odd = "<A xmlns='urn:vim25'/><B xmlns='urn:vim25'/>";
    assert!(keep(&mut root(odd), &call("A", ("X", "x"), Vec::new()), &Sight::Whole).is_err());
}

#[test]
fn a_refusal_is_told_from_an_answer() {
    let fault = |kind: &str| {
        root(&format!(
            "<e:Fault><faultcode>S</faultcode><faultstring/><detail><{kind}Fault xmlns='urn:vim25' i:type='{kind}'/></detail>
             </e:Fault>"
        ))
    };
    assert!(says(&fault("NotAuthenticated"), "NotAuthenticated"));
    assert!(!says(&fault("NoPermission"), "NotAuthenticated"));
    assert!(matches!(returned(&fault("NotAuthenticated"), false), Err(Fault::Unauthenticated)));
    assert!(matches!(returned(&fault("InvalidLogin"), false), Err(Fault::Refused(_))));
    let answer = "<LoginResponse xmlns='urn:vim25'><returnval><key>k</key></returnval></LoginResponse>";
    assert_eq!(returned(&root(answer), true).unwrap().len(), 1);
    assert!(returned(&root(answer), false).is_err());
}
