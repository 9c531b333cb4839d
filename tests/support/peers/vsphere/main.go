// SPDX-License-Identifier: Apache-2.0

// A simulated vCenter: the simulator of govmomi (Debian's golang-github-vmware-govmomi-dev), which comes without a command
// there. Four machines on one cluster: web-1 and web-2 in the folder blue, payroll and ledger in the folder red, each in
// a resource pool of the same name. vim SOAP at /sdk.
//
// Known differences from a real one: its API says 6.5; RetrieveProperties is answered before anybody signed in; a
// reference counts only with its right type; tasks end at once; AcquireTicket is missing, so it is added here, for
// webmks only, and what stands at the place that the ticket names is whatever -screen is: a QEMU's WebSocket behind TLS
// in the tests, which speaks plain RFB and never sees the ticket checked.
package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"flag"
	"fmt"
	"log"
	"net"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Where the screens of all machines are.
var screens struct {
	host, thumbprint string
	port             int32
}

// A machine with a screen. The simulator looks for the machine itself in the first field.
type machine struct{ simulator.VirtualMachine }

func (m *machine) AcquireTicket(req *types.AcquireTicket) soap.HasFault {
	body := new(methods.AcquireTicketBody)
	if req.TicketType != "webmks" || m.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
		body.Fault_ = simulator.Fault("no such ticket now", new(types.InvalidState))
		return body
	}
	secret := make([]byte, 12)
	if _, err := rand.Read(secret); err != nil {
		log.Fatal(err)
	}
	body.Res = &types.AcquireTicketResponse{Returnval: types.VirtualMachineTicket{
		Ticket:        "canaryticket" + hex.EncodeToString(secret),
		CfgFile:       m.Config.Files.VmPathName,
		Host:          screens.host,
		Port:          screens.port,
		SslThumbprint: screens.thumbprint,
	}}
	return body
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// settle gives the simulator's machines their names, and puts them where they belong.
func settle(place *url.URL) {
	ctx := context.Background()
	client, err := govmomi.NewClient(ctx, place, true)
	must(err)
	finder := find.NewFinder(client.Client, true)
	center, err := finder.DefaultDatacenter(ctx)
	must(err)
	finder.SetDatacenter(center)
	folders, err := center.Folders(ctx)
	must(err)
	top, err := finder.ResourcePool(ctx, "DC0_C0/Resources")
	must(err)
	for n, tenant := range [][]string{{"blue", "web-1", "web-2"}, {"red", "payroll", "ledger"}} {
		folder, err := folders.VmFolder.CreateFolder(ctx, tenant[0])
		must(err)
		pool, err := top.Create(ctx, tenant[0], types.DefaultResourceConfigSpec())
		must(err)
		to := pool.Reference()
		for i, name := range tenant[1:] {
			vm, err := finder.VirtualMachine(ctx, fmt.Sprintf("DC0_C0_RP0_VM%d", 2*n+i))
			must(err)
			task, err := vm.Reconfigure(ctx, types.VirtualMachineConfigSpec{Name: name})
			must(err)
			must(task.Wait(ctx))
			task, err = vm.Relocate(ctx, types.VirtualMachineRelocateSpec{Pool: &to}, types.VirtualMachineMovePriorityDefaultPriority)
			must(err)
			must(task.Wait(ctx))
			task, err = folder.MoveInto(ctx, []types.ManagedObjectReference{vm.Reference()})
			must(err)
			must(task.Wait(ctx))
		}
	}
	must(client.Logout(ctx))
}

var _ object.Reference = (*mo.VirtualMachine)(nil)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "host:port")
	user := flag.String("user", "gateway@vsphere.local", "who may sign in")
	password := flag.String("password-file", "", "file with the password")
	certificate := flag.String("cert", "", "PEM file")
	key := flag.String("key", "", "PEM file")
	screen := flag.String("screen", "", "host:port in tickets")
	flag.StringVar(&screens.thumbprint, "thumbprint", "", "SHA-1 in tickets")
	flag.Parse()

	secret, err := os.ReadFile(*password)
	must(err)
	pair, err := tls.LoadX509KeyPair(*certificate, *key)
	must(err)
	if host, port, err := net.SplitHostPort(*screen); err == nil {
		number, err := strconv.Atoi(port)
		must(err)
		screens.host, screens.port = host, int32(number)
	}
	model := simulator.VPX()
	model.Host, model.Machine = 0, 4
	must(model.Create())
	for _, e := range simulator.Map.All("VirtualMachine") {
		if vm, ok := simulator.Map.Get(e.Reference()).(*simulator.VirtualMachine); ok {
			simulator.Map.Put(&machine{*vm})
		}
	}
	model.Service.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	model.Service.Listen = &url.URL{
		User: url.UserPassword(*user, strings.TrimSpace(string(secret))), Host: *listen, Path: "/sdk",
	}
	server := model.Service.NewServer()
	settle(server.URL)
	log.Printf("ready %s", server.URL.Host)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
	server.Close()
	model.Remove()
}
