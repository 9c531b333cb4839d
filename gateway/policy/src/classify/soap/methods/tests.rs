// SPDX-License-Identifier: Apache-2.0
//! What the table of vSphere's API says.

use super::*;

/// Two machines, a snapshot of the first, a folder and a pool.
struct Lab;

impl Owners for Lab {
    fn find(&self, id: &str) -> Option<Way> {
        let (of, machine) = match id {
            "vm-1" | "vm-2" => ("VirtualMachine", Some(id)),
            "snapshot-3" => ("VirtualMachineSnapshot", Some("vm-1")),
            "group-v4" => ("Folder", None),
            "resgroup-5" => ("ResourcePool", None),
            "host-6" => ("HostSystem", None),
            _ => return None,
        };
        Some(Way { of: of.to_owned(), machine: machine.map(|m| m.parse().unwrap()) })
    }
}

fn told(method: &str, this: (&str, &str), arguments: &str) -> String {
    let text = format!(
        "<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'
          xmlns:i='http://www.w3.org/2001/XMLSchema-instance'><e:Body><{method} xmlns='urn:vim25'>
          <_this type='{}'>{}</_this>{arguments}</{method}></e:Body></e:Envelope>",
        this.0, this.1
    );
    let call = match Call::read(text.as_bytes(), None) {
        Ok(call) => call,
        Err(why) => return format!("unread: {why}"),
    };
    match Methods::builtin().classify(&"vc".parse().unwrap(), &call, &Lab) {
        Told::Operation { operation, also } => {
            let all: Vec<String> = std::iter::once(&operation).chain(&also).map(ToString::to_string).collect();
            all.join(" + ")
        }
        Told::Visible { named, also } => {
            let named = named.iter().map(|r| r.id.as_str()).collect::<Vec<_>>().join(" ");
            let also = also.iter().fold(String::new(), |all, o| format!("{all} + {o}"));
            format!("visible: {named}{also}")
        }
        Told::Task { id, other } => format!("task {id}, else {other}"),
        Told::Denied(why) => format!("denied: {why}"),
    }
}

const VM: (&str, &str) = ("VirtualMachine", "vm-1");

#[test]
fn every_method_of_the_api_has_a_verdict() {
    let table = Methods::read(VSPHERE, OPERATIONS).unwrap();
    // What a method is called says whether it may be called a read.
    let reads = [
        "Query",
        "Retrieve",
        "Find",
        "Get",
        "get",
        "query",
        "Has",
        "Check",
        "Lookup",
        "List",
        "Fetch",
        "Is",
        "Read",
        "Estimate",
        "Are",
        "Validate",
        "HostRetrieve",
        "HostList",
        "HostVStorageObjectRetrieve",
        "HostImageConfigGet",
        "HostSpecGet",
        "HostQuery",
        "Decode",
        "ConvertNamespace",
        "Recommend",
        "Reconfiguration",
        "CanProvision",
        "BatchQuery",
        "DirectPathProfileManagerList",
        "DirectPathProfileManagerQuery",
        "Current",
        "ExtractOvf",
        "ContinueRetrieve",
        "WaitFor",
    ];
    // They change nothing but the session's own.
    let own = [
        "CancelRetrievePropertiesEx",
        "CancelWaitForUpdates",
        "CreateFilter",
        "CreatePropertyCollector",
        "DestroyPropertyCollector",
        "DestroyPropertyFilter",
        "CreateContainerView",
        "CreateInventoryView",
        "CreateListView",
        "CreateListViewFromView",
        "DestroyView",
        "ModifyListView",
        "ResetListView",
        "ResetListViewFromView",
        "OpenInventoryViewFolder",
        "CloseInventoryViewFolder",
        "CreateCollectorForEvents",
        "CreateCollectorForTasks",
        "CreateCollectorWithInfoFilterForTasks",
        "SetCollectorPageSize",
        "RewindCollector",
        "ResetCollector",
        "DestroyCollector",
    ];
    let (mut known, mut denied, mut wrong) = (0, 0, Vec::new());
    for line in OPERATIONS.lines().filter(|l| !l.starts_with(['#', '@'])) {
        let method = line.split(' ').nth(1).unwrap();
        match table.verdict(method) {
            None => wrong.push(format!("{line}: no verdict")),
            Some(Err(_)) => denied += 1,
            Some(Ok((_, Effect::Safe))) if !reads.iter().any(|r| method.starts_with(r)) && !own.contains(&method) => {
                wrong.push(format!("{line}: is it a read?"));
            }
            Some(Ok(_)) => {}
        }
        known += 1;
    }
    println!("vSphere: {known} methods, {denied} of them denied, {} without a verdict", wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(known, 975, "974 and Fetch");
}

#[test]
fn calls_ask_for_what_they_are_called_on() {
    for (method, this, arguments, wanted) in [
        ("PowerOffVM_Task", VM, "", "power on vc/vm-1"),
        ("PowerOnVM_Task", VM, "<host type='HostSystem'>host-6</host>", "power on vc/vm-1"),
        (
            "RevertToSnapshot_Task",
            ("VirtualMachineSnapshot", "snapshot-3"),
            "",
            "snapshot on vc/vm-1 + node-admin on vc",
        ),
        ("RevertToCurrentSnapshot_Task", VM, "", "snapshot on vc/vm-1 + node-admin on vc"),
        ("Destroy_Task", VM, "", "destroy on vc/vm-1"),
        ("Destroy_Task", ("Folder", "group-v4"), "", "destroy on vc + node-admin on vc"),
        ("Rename_Task", VM, "<newName>x</newName>", "configure on vc/vm-1"),
        ("Rename_Task", ("Folder", "group-v4"), "<newName>x</newName>", "access-admin on vc + node-admin on vc"),
        (
            "PowerOnMultiVM_Task",
            ("Datacenter", "datacenter-2"),
            "<vm type='VirtualMachine'>vm-1</vm><vm type='VirtualMachine'>vm-2</vm>",
            "power on vc/vm-1,vm-2",
        ),
        ("PowerOnMultiVM_Task", ("Datacenter", "datacenter-2"), "", "denied: That names no machine."),
        ("RelocateVM_Task", VM, "<spec><host type='HostSystem'>host-6</host></spec>", "migrate on vc/vm-1"),
        (
            "RelocateVM_Task",
            VM,
            "<spec><pool type='ResourcePool'>resgroup-5</pool><datastore type='Datastore'>d-1</datastore></spec>",
            "migrate on vc/vm-1 + access-admin on vc + storage on vc/vm-1",
        ),
        (
            "MigrateVM_Task",
            VM,
            "<pool type='ResourcePool'>resgroup-5</pool><priority>defaultPriority</priority>",
            "migrate on vc/vm-1 + access-admin on vc",
        ),
        (
            "RelocateVM_Task",
            VM,
            "<spec><service><url>https://evil</url></service></spec>",
            "denied: A machine does not leave for another vCenter through the gateway.",
        ),
        (
            "CloneVM_Task",
            VM,
            "<folder type='Folder'>group-v4</folder><name>copy</name><spec><location/><powerOn>true</powerOn></spec>",
            "storage on vc/vm-1 + create on vc + node-admin on vc + access-admin on vc",
        ),
        (
            "InstantClone_Task",
            VM,
            "<spec><name>copy</name><location/></spec>",
            "storage on vc/vm-1 + create on vc + node-admin on vc + access-admin on vc",
        ),
        (
            "StartProgramInGuest",
            ("GuestProcessManager", "guestOperationsProcessManager"),
            "<vm type='VirtualMachine'>vm-2</vm><auth/><spec><programPath>/bin/sh</programPath></spec>",
            "guest-exec on vc/vm-2",
        ),
        (
            "QueryPerf",
            ("PerformanceManager", "PerfMgr"),
            "<querySpec><entity type='VirtualMachine'>vm-2</entity></querySpec>",
            "view on vc/vm-2",
        ),
        (
            "QueryPerf",
            ("PerformanceManager", "PerfMgr"),
            "<querySpec><entity type='HostSystem'>host-6</entity></querySpec>",
            "view on vc",
        ),
        (
            "QueryPerf",
            ("PerformanceManager", "PerfMgr"),
            "<querySpec><entity type='HostSystem'>host-6</entity></querySpec><querySpec><entity type='VirtualMachine'>vm-2</entity></querySpec>",
            "view on vc + view on vc/vm-2",
        ),
        (
            "MoveIntoFolder_Task",
            ("Folder", "group-v4"),
            "<list type='VirtualMachine'>vm-2</list>",
            "access-admin on vc + configure on vc/vm-2",
        ),
        ("CancelTask", ("Task", "task-9"), "", "task task-9, else node-admin on vc"),
        ("Fetch", VM, "<prop>name</prop>", "visible: vm-1"),
        ("RetrieveServiceContent", ("ServiceInstance", "ServiceInstance"), "", "visible: "),
        // To name a property asks for what the method asks that tells the same.
        ("Fetch", ("OptionManager", "VpxSettings"), "<prop>setting</prop>", "visible:  + node-admin on vc"),
        ("Fetch", VM, "<prop>permission</prop>", "visible: vm-1 + access-admin on vc"),
        ("Fetch", ("HostSystem", "host-6"), "<prop>config.product.version</prop>", "visible: host-6"),
        ("Fetch", ("SessionManager", "SessionManager"), "<prop>sessionList</prop>", "visible: "),
        ("Fetch", ("Task", "task-7"), "<prop>info.state</prop>", "visible: "),
        (
            "Fetch",
            ("Unheard", "x"),
            "<prop>setting</prop>",
            "denied: The gateway does not know a property setting of Unheard, so it is not read.",
        ),
        // The hypervisor goes by the id: whatever else has such a property is asked for, too.
        (
            "Fetch",
            ("Task", "schedule-7"),
            "<prop>info</prop>",
            "visible:  + network on vc + access-admin on vc + node-admin on vc",
        ),
        (
            "RetrievePropertiesEx",
            ("PropertyCollector", "propertyCollector"),
            "<specSet><propSet><type>HostSystem</type><pathSet>name</pathSet><pathSet>config.option</pathSet></propSet>
             <propSet><type>AuthorizationManager</type><pathSet>roleList</pathSet></propSet>
             <objectSet><obj type='HostSystem'>host-6</obj></objectSet></specSet><options/>",
            "visible: host-6 + access-admin on vc + node-admin on vc",
        ),
        (
            "CreateFilter",
            ("PropertyCollector", "propertyCollector"),
            "<spec><propSet><type>HostStorageSystem</type><pathSet>storageDeviceInfo</pathSet></propSet></spec>
             <partialUpdates>true</partialUpdates>",
            "visible:  + storage on vc",
        ),
        // All at once names none: the answer is cut down.
        (
            "RetrieveProperties",
            ("PropertyCollector", "propertyCollector"),
            "<specSet><propSet><type>HostSystem</type><all>true</all></propSet></specSet>",
            "visible: ",
        ),
        (
            "RetrieveProperties",
            ("PropertyCollector", "propertyCollector"),
            "<specSet><propSet><type>Folder</type><type>HostSystem</type><pathSet>config</pathSet></propSet></specSet>",
            "denied: A set of properties does not say of which type they are.",
        ),
        (
            "CreateContainerView",
            ("ViewManager", "ViewManager"),
            "<container type='Folder'>group-v4</container><type>VirtualMachine</type><recursive>true</recursive>",
            "visible: group-v4",
        ),
        ("EnterMaintenanceMode_Task", ("HostSystem", "host-6"), "<timeout>0</timeout>", "node-admin on vc"),
        (
            "AcquireTicket",
            VM,
            "<ticketType>webmks</ticketType>",
            "denied: A screen opens on the portal's console page, where it is decided on and recorded.",
        ),
    ] {
        assert_eq!(told(method, this, arguments), wanted, "{method} {arguments}");
    }
}

#[test]
fn no_property_asks_for_less_than_the_method_that_tells_the_same() {
    let table = Methods::builtin();
    for (of, path, method) in [
        ("OptionManager", "setting", "QueryOptions"),
        ("AuthorizationManager", "roleList", "RetrieveRolePermissions"),
        ("Folder", "permission", "RetrieveEntityPermissions"),
        ("ClusterComputeResource", "effectiveRole", "HasPrivilegeOnEntities"),
        ("HostSystem", "config", "QueryOptions"),
        ("HostSystem", "config.option", "QueryOptions"),
        ("HostSystem", "config.certificate", "RetrieveCertificateInfoList"),
        ("HostCertificateManager", "certificateInfo", "RetrieveCertificateInfoList"),
        ("HostAccessManager", "lockdownMode", "QueryLockdownExceptions"),
        ("CryptoManagerKmip", "kmipServers", "ListKmipServers"),
        ("HostProfile", "config", "ExportProfile"),
        ("ServiceManager", "service", "QueryServiceList"),
        ("LicenseManager", "licenses", "DecodeLicense"),
        ("UserDirectory", "domainList", "RetrieveUserGroups"),
        ("EventManager", "latestEvent", "QueryEvents"),
        ("TaskHistoryCollector", "latestPage", "ReadNextTasks"),
    ] {
        let (action, _) = table.verdict(method).unwrap().unwrap();
        assert_eq!(table.property(of, path).unwrap().reader, Reader::Holder(action), "{of}.{path}");
    }
    for (of, path) in [("SessionManager", "sessionList"), ("HttpNfcLease", "info")] {
        assert_eq!(table.property(of, path).unwrap().reader, Reader::Nobody, "{of}.{path}");
    }
}

#[test]
fn settings_ask_for_what_they_reach() {
    let disk = |operation: &str, file: &str| {
        format!(
            "<deviceChange><operation>add</operation>{operation}<device i:type='VirtualDisk'><key>-1</key>
             <backing i:type='VirtualDiskFlatVer2BackingInfo'><fileName>{file}</fileName></backing></device></deviceChange>"
        )
    };
    let create = "<fileOperation>create</fileOperation>";
    for (spec, wanted) in [
        ("<name>x</name><numCPUs>2</numCPUs>".to_owned(), "configure on vc/vm-1"),
        (disk("", "[ds]"), "configure on vc/vm-1 + storage on vc/vm-1"),
        (disk(create, "[ds] web/new.vmdk"), "configure on vc/vm-1 + storage on vc/vm-1"),
        (disk("", "[ds] payroll/disk.vmdk"), "configure on vc/vm-1 + storage on vc/vm-1 + storage on vc"),
        (
            "<deviceChange><operation>add</operation><device i:type='VirtualVmxnet3'><key>-1</key>
             <backing i:type='VirtualEthernetCardNetworkBackingInfo'><deviceName>VM Network</deviceName></backing>
             </device></deviceChange>"
                .to_owned(),
            "configure on vc/vm-1 + network on vc/vm-1",
        ),
        // Which device it is says the key: a disk may be called anything.
        (
            "<deviceChange><operation>remove</operation><fileOperation>destroy</fileOperation>
             <device i:type='VirtualSoundCard'><key>2000</key></device></deviceChange>"
                .to_owned(),
            "configure on vc/vm-1 + storage on vc/vm-1 + network on vc/vm-1",
        ),
        (
            "<deviceChange><operation>add</operation><operation>remove</operation>
             <device i:type='VirtualSoundCard'><key>2000</key></device></deviceChange>"
                .to_owned(),
            "configure on vc/vm-1 + storage on vc/vm-1 + network on vc/vm-1",
        ),
        (
            "<deviceChange><operation>add</operation><device i:type='VirtualCdrom'><key>-1</key>
             <backing i:type='VirtualCdromIsoBackingInfo'><fileName>[ds] iso/debian.ISO</fileName></backing>
             </device></deviceChange>"
                .to_owned(),
            "configure on vc/vm-1 + storage on vc/vm-1",
        ),
        (
            "<deviceChange><operation>add</operation><device i:type='VirtualSerialPort'><key>-1</key>
             <backing i:type='VirtualSerialPortURIBackingInfo'><serviceURI>tcp://evil</serviceURI></backing>
             </device></deviceChange>"
                .to_owned(),
            "configure on vc/vm-1 + node-admin on vc",
        ),
        (
            "<extraConfig><key>guestinfo.userdata</key><value>x</value></extraConfig>".to_owned(),
            "configure on vc/vm-1 + guest-exec on vc/vm-1",
        ),
        (
            "<extraConfig><key>RemoteDisplay.vnc.enabled</key><value>true</value></extraConfig>".to_owned(),
            "configure on vc/vm-1 + node-admin on vc",
        ),
        (
            "<files><vmPathName>[ds] payroll/payroll.vmx</vmPathName></files>".to_owned(),
            "configure on vc/vm-1 + storage on vc",
        ),
        ("<tagSpecs><id/></tagSpecs>".to_owned(), "configure on vc/vm-1 + access-admin on vc"),
        ("<unheard>1</unheard>".to_owned(), "denied: The gateway does not know the field unheard here."),
        (
            "<deviceChange><device i:type='VirtualUnheard'/></deviceChange>".to_owned(),
            "denied: The gateway does not know this type of device.",
        ),
        ("<deviceChange><device/></deviceChange>".to_owned(), "denied: The gateway does not know this type of device."),
        ("<extraConfig><value>x</value></extraConfig>".to_owned(), "denied: A line of the settings file has no key."),
    ] {
        assert_eq!(told("ReconfigVM_Task", VM, &format!("<spec>{spec}</spec>")), wanted, "{spec}");
    }
    assert_eq!(
        told(
            "CloneVM_Task",
            VM,
            "<folder type='Folder'>group-v4</folder><name>x</name><spec><location/><config><extraConfig><key>x</key>
             </extraConfig></config></spec>"
        ),
        "storage on vc/vm-1 + create on vc + node-admin on vc + access-admin on vc"
    );
}

#[test]
fn a_reference_that_could_be_read_in_two_ways_is_refused() {
    for (method, this, arguments, why) in [
        // Called something else than it is: a hypervisor that goes by the id would do it to the machine.
        ("PowerOffVM_Task", ("Datacenter", "vm-2"), "", "no such object"),
        ("PowerOffVM_Task", ("VirtualMachineSnapshot", "vm-2"), "", "no such object"),
        ("Fetch", ("HostPowerSystem", "vm-2"), "<prop>capability</prop>", "no such object"),
        ("CancelTask", ("Task", "vm-2"), "", "no such object"),
        ("RevertToSnapshot_Task", ("VirtualMachineSnapshot", "snapshot-99"), "", "no such object"),
        ("PowerOnMultiVM_Task", ("Datacenter", "d-1"), "<vm type='Folder'>vm-2</vm>", "names no machine"),
        // Without its type.
        ("PowerOnMultiVM_Task", ("Datacenter", "d-1"), "<vm>vm-2</vm>", "does not say which type"),
        ("RelocateVM_Task", VM, "<spec><pool>resgroup-5</pool></spec>", "does not say which type"),
        (
            "QueryPerf",
            ("PerformanceManager", "p"),
            "<querySpec><entity>vm-2</entity></querySpec>",
            "does not say which",
        ),
        ("CreateTask", ("TaskManager", "t"), "<obj i:type='ManagedObjectReference'>vm-2</obj>", "does not say which"),
        // Not in the API's list.
        ("PowerOffVM_Task", VM, "<force>true</force>", "does not know an argument"),
        ("PowerOffVM_Task", VM, "<vm type='VirtualMachine'>vm-2</vm>", "does not know an argument"),
        ("PowerOff", VM, "", "does not know this method"),
        ("poweroffvm_task", VM, "", "does not know this method"),
    ] {
        let told = told(method, this, arguments);
        assert!(told.starts_with("denied") && told.contains(why), "{method} {arguments}: {told}");
    }
    // What it is called decides what is asked first, as of something that is not there; then there is no such machine.
    let lying = told("Destroy_Task", ("Folder", "vm-2"), "");
    assert_eq!(lying, "destroy on vc + node-admin on vc + view on vc/-");
    assert_eq!(told("Destroy_Task", ("Folder", "vm-99"), ""), "destroy on vc + node-admin on vc");
    let network = |id: &str| told("Fetch", ("HostNetworkSystem", id), "<prop>networkInfo</prop>");
    assert_eq!(
        (network("vm-2"), network("vm-99")),
        ("visible:  + network on vc + view on vc/-".into(), "visible:  + network on vc".into())
    );
    // One that the inventory does not know is decided on as what it says, and policy denies it.
    assert_eq!(told("PowerOffVM_Task", ("VirtualMachine", "vm-99"), ""), "power on vc/vm-99");
    assert_eq!(told("PowerOffVM_Task", ("VirtualMachine", "../x"), ""), "denied: There is no such object.");
}

#[test]
fn a_table_that_says_something_senseless_is_refused() {
    let list = "VirtualMachine A host*\n";
    let row = |more: &str| format!("[[rule]]\nmethods = [\"A\"]\n{more}");
    let good = row("object = \"machine\"\naction = \"power\"\neffect = \"unsafe\"");
    assert!(Methods::read(&good, list).is_ok());
    for bad in [
        row("object = \"machine\"\naction = \"view\"\neffect = \"unsafe\""),
        row("object = \"hypervisor\"\naction = \"guest-exec\"\neffect = \"unsafe\""),
        row("object = \"machine\"\naction = \"create\"\neffect = \"unsafe\""),
        row("object = \"visible\"\naction = \"power\"\neffect = \"unsafe\""),
        row("object = \"entity\"\naction = \"power\"\neffect = \"unsafe\""),
        row("object = \"machine\"\naction = \"power\""),
        row("deny = \"\""),
        row("deny = \"no\"\naction = \"power\""),
        row("object = \"machine\"\naction = \"power\"\neffect = \"unsafe\"\nfields = { spec = \"none\" }"),
        format!("{good}\n{good}"),
        good.replace("\"A\"", "\"B\""),
        format!("{good}\ncolour = 1"),
    ] {
        assert!(Methods::read(&bad, list).is_err(), "{bad}");
    }
}
