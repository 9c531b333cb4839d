// SPDX-License-Identifier: Apache-2.0
//! What goes out of answers.

use super::*;

fn root(inner: &str) -> Element {
    let text = format!(
        "<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/' xmlns:i='http://www.w3.org/2001/XMLSchema-instance'
          xmlns:s='http://www.w3.org/2001/XMLSchema'><e:Header><x xmlns='urn:vim25'>header</x></e:Header>
         <e:Body>{inner}</e:Body></e:Envelope>"
    );
    portcullis_policy::classify::soap::opened(Element::read(&text, 1000).unwrap()).unwrap()
}

fn call(method: &str, this: (&str, &str), arguments: Vec<Element>) -> Call {
    Call { method: method.to_owned(), this: Reference { of: this.0.to_owned(), id: this.1.to_owned() }, arguments }
}

fn part() -> Sight {
    let set = |ids: &[&str]| ids.iter().map(|i| (*i).to_owned()).collect();
    let part = Part {
        machines: set(&["vm-1"]),
        places: set(&["group-v5", "resgroup-9", "host-11", "snapshot-3"]),
        tasks: set(&["task-1"]),
    };
    Sight { holds: Vec::new(), part: Some(part) }
}

fn whole(holds: &[Action]) -> Sight {
    Sight { holds: holds.to_vec(), part: None }
}

fn everything() -> Sight {
    whole(&[Action::View, Action::AccessAdmin, Action::NodeAdmin, Action::Storage, Action::Network])
}

fn kept(method: &str, inner: &str, sight: &Sight) -> String {
    let mut answer = root(inner);
    keep(&mut answer, &call(method, ("PropertyCollector", "pc"), Vec::new()), sight);
    answer.document()
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
    let whole = kept("WaitForUpdatesEx", &inner, &whole(&[Action::View]));
    assert!(whole.contains("name-of-vm-2") && whole.contains("vm-3"));
}

#[test]
fn one_property_is_shown_like_one_in_a_list() {
    let fetch = |this: (&str, &str), property: &str, value: &str| {
        let mut root = root(&format!("<FetchResponse xmlns='urn:vim25'>{value}</FetchResponse>"));
        let arguments = vec![Element::text("prop", property)];
        keep(&mut root, &call("Fetch", this, arguments), &part());
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
        let text = kept("Any", &inner, &everything());
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
        keep(&mut root, &call("Fetch", ("VirtualMachine", "vm-1"), arguments), &everything());
        assert!(!root.document().contains("hidden"), "{properties:?}");
    }
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

/// What a list holds of one property.
fn reads(sight: &Sight, of: &str, id: &str, property: &str, val: &str) -> bool {
    let by_list = kept("RetrievePropertiesEx", &page(&[object(of, id, &[(property, val)])]), sight).contains("told");
    let update = format!(
        "<WaitForUpdatesExResponse xmlns='urn:vim25'><returnval><filterSet><filter type='PropertyFilter'>f</filter><objectSet>
         <kind>modify</kind><obj type='{of}'>{id}</obj><changeSet><name>{property}</name><op>assign</op>{val}</changeSet>
         </objectSet></filterSet></returnval></WaitForUpdatesExResponse>"
    );
    assert_eq!(kept("WaitForUpdatesEx", &update, sight).contains("told"), by_list, "{of} {property}");
    let mut fetched =
        root(&format!("<FetchResponse xmlns='urn:vim25'>{}</FetchResponse>", val.replace("val>", "returnval>")));
    keep(&mut fetched, &call("Fetch", (of, id), vec![Element::text("prop", property)]), sight);
    assert_eq!(fetched.document().contains("told"), by_list, "{of} {property}");
    by_list
}

#[test]
fn who_sees_everything_is_told_no_more_of_it_than_what_their_rights_tell_by_other_methods() {
    let viewer = whole(&[Action::View]);
    let node = whole(&[Action::View, Action::NodeAdmin]);
    let access = whole(&[Action::View, Action::AccessAdmin]);
    let text = "<val>told</val>";
    for (of, id, property, by) in [
        ("OptionManager", "VpxSettings", "setting", "node"),
        ("AuthorizationManager", "AuthorizationManager", "roleList", "access"),
        ("Folder", "group-v5", "permission", "access"),
        ("VirtualMachine", "vm-1", "permission", "access"),
        ("VirtualMachine", "vm-1", "effectiveRole", "access"),
        ("HostSystem", "host-11", "config", "node"),
        ("HostSystem", "host-11", "config.option", "node"),
        ("HostSystem", "host-11", "config.option[\"a.b\"].value", "node"),
        ("HostSystem", "host-11", "config.product.version", "all"),
        ("HostSystem", "host-11", "summary.hardware", "all"),
        ("HostSystem", "host-11", "config.storageDevice", "none of these"),
        ("HostStorageSystem", "storageSystem-11", "storageDeviceInfo", "none of these"),
        ("CryptoManagerKmip", "CryptoManager", "kmipServers", "node"),
        ("LicenseManager", "LicenseManager", "licenses", "node"),
        ("HostProfile", "hostprofile-1", "config", "node"),
        ("SessionManager", "SessionManager", "message", "all"),
        ("EventManager", "EventManager", "latestEvent", "all"),
        ("Unheard", "x-1", "name", "none of these"),
        ("HostSystem", "host-11", "unheard", "none of these"),
        ("VirtualMachine", "vm-1", "config", "all"),
    ] {
        let told = [&viewer, &node, &access].map(|sight| reads(sight, of, id, property, text));
        let wanted = match by {
            "all" => [true; 3],
            "node" => [false, true, false],
            "access" => [false, false, true],
            _ => [false; 3],
        };
        assert_eq!(told, wanted, "{of} {property}");
    }
    assert!(reads(&everything(), "HostStorageSystem", "storageSystem-11", "storageDeviceInfo", text));
    assert!(!reads(&everything(), "SessionManager", "SessionManager", "sessionList", text), "nobody");
    // Of the whole of a host's settings a part stays away that asks for more.
    let config = "<val><option><key>told</key></option><storageDevice><x>hidden</x></storageDevice></val>";
    let page = page(&[object("HostSystem", "host-11", &[("config", config)])]);
    let text = kept("RetrievePropertiesEx", &page, &node);
    assert!(text.contains("told") && !text.contains("hidden"), "{text}");
    assert!(kept("RetrievePropertiesEx", &page, &everything()).contains("hidden"));
    // Properties of what is no object are nobody's.
    let odd = "<AnyResponse xmlns='urn:vim25'><returnval><objects><obj>host-11</obj><propSet><name>name</name><val>hidden</val>
               </propSet></objects><x><propSet><name>name</name><val>hidden</val></propSet></x></returnval></AnyResponse>";
    assert!(!kept("Any", odd, &everything()).contains("hidden"));
}

#[test]
fn a_machine_that_is_forbidden_to_who_sees_the_rest_is_nowhere_in_an_answer() {
    let mut sight = part();
    sight.holds = vec![Action::View, Action::NodeAdmin];
    let answer = |method: &str, inner: &str| {
        let inner = format!("<{method}Response xmlns='urn:vim25'>{inner}</{method}Response>");
        kept(method, &inner, &sight)
    };
    let event = |vm: &str| {
        format!(
            "<returnval i:type='VmPoweredOnEvent'><key>1</key><chainId>1</chainId><vm><name>name-of-{vm}</name>
             <vm type='VirtualMachine'>{vm}</vm></vm><fullFormattedMessage>{vm} is on</fullFormattedMessage></returnval>"
        )
    };
    let text = answer("QueryEvents", &[event("vm-1"), event("vm-2")].concat());
    assert!(text.contains("vm-1 is on") && !text.contains("vm-2"), "{text}");
    let by_id = "<returnval i:type='EventEx'><chainId>1</chainId><message>hidden</message><objectId>vm-2</objectId></returnval>";
    assert!(!answer("QueryEvents", by_id).contains("hidden"));
    let task = |vm: &str| {
        format!(
            "<returnval><key>t</key><entity type='VirtualMachine'>{vm}</entity><entityName>name-of-{vm}</entityName></returnval>"
        )
    };
    let text = answer("ReadNextTasks", &[task("vm-1"), task("vm-2")].concat());
    assert!(text.contains("name-of-vm-1") && !text.contains("vm-2"), "{text}");
    // Several machines are a list, of which the others stay.
    let rule = "<returnval><name>rule</name><vm type='VirtualMachine'>vm-1</vm><vm type='VirtualMachine'>vm-2</vm></returnval>";
    let text = answer("FindRulesForVm", rule);
    assert!(text.contains("rule") && text.contains("vm-1") && !text.contains("vm-2"), "{text}");
    // Everything else of the hypervisor is seen, but what speaks of any machine.
    let reads = |of: &str, id: &str, property: &str| reads(&sight, of, id, property, "<val>told</val>");
    assert!(reads("HostSystem", "host-12", "summary") && reads("Datastore", "datastore-4", "summary"));
    assert!(reads("HostSystem", "host-12", "config.option") && reads("VirtualMachine", "vm-1", "name"));
    for (of, id, property) in [
        ("VirtualMachine", "vm-2", "name"),
        ("VirtualMachineSnapshot", "snapshot-4", "config"),
        ("Task", "task-2", "info.entityName"),
        ("EventManager", "EventManager", "latestEvent.fullFormattedMessage"),
        ("EventHistoryCollector", "session[x]1", "latestPage"),
        ("ClusterComputeResource", "domain-c8", "recommendation"),
        ("Folder", "group-v6", "triggeredAlarmState"),
        ("Folder", "group-v6", "permission"),
    ] {
        assert!(!reads(of, id, property), "{of} {property}");
    }
    let alarm = |vm: &str| format!("<val><name>told</name><entity type='VirtualMachine'>{vm}</entity></val>");
    let reads_alarm = |vm: &str| self::reads(&sight, "Alarm", "alarm-1", "info", &alarm(vm));
    assert!(reads_alarm("vm-1") && !reads_alarm("vm-2"));
    let vms = "<val><ManagedObjectReference type='VirtualMachine'>vm-2</ManagedObjectReference>
               <ManagedObjectReference type='VirtualMachine'>vm-1</ManagedObjectReference></val>";
    let text = kept("RetrieveProperties", &page(&[object("HostSystem", "host-12", &[("vm", vms)])]), &sight);
    assert!(text.contains(">vm-1<") && !text.contains("vm-2"), "{text}");
}

#[test]
fn fields_that_hold_secrets_go_out_to_nobody_by_any_of_their_names() {
    let fields = [
        "password",
        "passwd",
        "adminPassword",
        "domainAdminPassword",
        "newPassword",
        "ticket",
        "cloneTicket",
        "privateKey",
        "secret",
        "sharedSecret",
        "challengeResponse",
        "authToken",
        "sessionKey",
        "sessionId",
        "vncPassword",
        "encryptionKey",
        "chapSecret",
        "mutualChapSecret",
        "readOnlyCommunities",
        "licenseKey",
    ];
    for field in fields {
        let inner = format!(
            "<AnyResponse xmlns='urn:vim25'><returnval><x>shown</x><{field}>hidden</{field}></returnval></AnyResponse>"
        );
        let text = kept("Any", &inner, &everything());
        assert!(text.contains("shown") && !text.contains("hidden"), "{field}: {text}");
    }
    // Lines of settings, and properties that are asked for by their path.
    for name in [
        "RemoteDisplay.vnc.key",
        "guestinfo.userdata",
        "guestinfo.db.PASSWORD",
        "a.secret",
        "b.Token",
        "snmp.community",
        "iscsi.CHAP.name",
        "config.extraConfig[\"session.key\"]",
        "sessionList",
        "config.vAppConfig.property[0].value",
        "vAppConfig.property[key-1].defaultValue",
    ] {
        let setting = format!(
            "<AnyResponse xmlns='urn:vim25'><returnval><key>{name}</key><value>hidden</value></returnval></AnyResponse>"
        );
        assert!(!kept("Any", &setting, &everything()).contains("hidden"), "{name}");
        assert!(is_secret(name), "{name}");
    }
    for open in ["name", "config.hardware", "guestinfo.hostname", "svga.present", "config.vAppConfig.property[0].label"]
    {
        assert!(!is_secret(open), "{open}");
    }
}
