// SPDX-License-Identifier: Apache-2.0

// A simulated vCenter: the simulator of govmomi (Debian's golang-github-vmware-govmomi-dev), which comes without a command
// there. Four machines on one cluster: web-1 and web-2 in the folder blue, payroll and ledger in the folder red, each in
// a resource pool of the same name. With -esx one ESXi host instead, with the simulator's own two machines. vim SOAP at
// /sdk; of the Automation API what the simulator has at /rest (sessions, tags, libraries), and what rest.go adds to it.
//
// Known differences from a real one: its API says 6.5; RetrieveProperties is answered before anybody signed in; a
// reference counts only with its right type; tasks end at once, and some say that they are about a snapshot; of sessions
// that wait for updates at the collector that all have, only the last hears of any; pools do not list machines that moved
// into them; datastores are called by their paths. AcquireTicket is missing, so it is added in front of it, for webmks
// only; its ticket names the host that -screen says, and nothing here asks for it again. ChangePassword is missing on hosts,
// so it is added as well: for the one user, with the old password, and a new one of at least seven letters. Everybody may do
// everything.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/simulator"
	_ "github.com/vmware/govmomi/vapi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Where the screens of all machines are.
var screens struct{ host, port, thumbprint string }

// The machine that a call for a screen's ticket is for.
var acquire = regexp.MustCompile(`(?s)<AcquireTicket[ >].*?<_this [^>]*type="VirtualMachine"[^>]*>([a-z0-9-]+)</_this>.*>webmks<`)

// A change of somebody's own password.
var change = regexp.MustCompile(`(?s)<ChangePassword[ >].*?<_this [^>]*type="HostLocalAccountManager"[^>]*>ha-localacctmgr</_this>` +
	`<user[^>]*>([^<]*)</user><oldPassword[^>]*>([^<]*)</oldPassword><newPassword[^>]*>([^<]*)</newPassword>`)

// changed changes the password of a host's user.
func changed(w http.ResponseWriter, listen *url.URL, user, old, wanted string) {
	now, _ := listen.User.Password()
	fault := ""
	if user != listen.User.Username() || old != now {
		fault = "InvalidLogin"
	} else if len(wanted) < 7 {
		fault = "InvalidArgument"
	}
	if fault != "" {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, envelope(`<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>no: `+wanted+`</faultstring><detail><`+
			fault+`Fault xmlns="urn:vim25" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="`+fault+`"/></detail></soapenv:Fault>`))
		return
	}
	listen.User = url.UserPassword(user, wanted)
	fmt.Fprint(w, envelope(`<ChangePasswordResponse xmlns="urn:vim25"></ChangePasswordResponse>`))
}

// front answers calls for tickets, and for a host's passwords, and passes on everything else. The simulator is asked first whether whoever calls is
// signed in and whether the machine is there and on.
func front(inner http.Handler, host *url.URL) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if found := change.FindSubmatch(body); found != nil && host != nil {
			changed(w, host, string(found[1]), string(found[2]), string(found[3]))
			return
		}
		found := acquire.FindSubmatch(body)
		if found == nil {
			r.Body = io.NopCloser(bytes.NewReader(body))
			inner.ServeHTTP(w, r)
			return
		}
		ask := envelope(`<Fetch xmlns="urn:vim25"><_this type="VirtualMachine">` + string(found[1]) +
			`</_this><prop>runtime</prop></Fetch>`)
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(ask)), int64(len(ask))
		told := httptest.NewRecorder()
		inner.ServeHTTP(told, r)
		text := told.Body.String()
		w.Header().Set("Content-Type", "text/xml; charset=utf-8")
		if told.Code == http.StatusOK && !strings.Contains(text, ">poweredOn<") {
			told.Code = http.StatusInternalServerError
			text = envelope(`<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>it is off</faultstring>` +
				`<detail><InvalidStateFault xmlns="urn:vim25" xsi:type="InvalidState"/></detail></soapenv:Fault>`)
		} else if told.Code == http.StatusOK {
			secret := make([]byte, 12)
			_, err := rand.Read(secret)
			must(err)
			text = envelope(fmt.Sprintf(`<AcquireTicketResponse xmlns="urn:vim25"><returnval><ticket>canaryticket%s</ticket>`+
				`<cfgFile>x</cfgFile><host>%s</host><port>%s</port><sslThumbprint>%s</sslThumbprint></returnval>`+
				`</AcquireTicketResponse>`, hex.EncodeToString(secret), screens.host, screens.port, screens.thumbprint))
		}
		w.WriteHeader(told.Code)
		_, _ = io.WriteString(w, text)
	})
}

func envelope(inner string) string {
	return `<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope ` +
		`xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" ` +
		`xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>` + inner +
		`</soapenv:Body></soapenv:Envelope>`
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

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "host:port")
	user := flag.String("user", "gateway@vsphere.local", "who may sign in")
	password := flag.String("password-file", "", "file with the password")
	certificate := flag.String("cert", "", "PEM file")
	key := flag.String("key", "", "PEM file")
	esx := flag.Bool("esx", false, "a host instead of a vCenter")
	screen := flag.String("screen", "", "host:port in tickets")
	ended := flag.String("ended", "", "file: sessions of the Automation API from before it was written are over")
	only := flag.String("only", "", "the one form of the Automation API's sessions that there is: /api or /rest")
	flag.StringVar(&screens.thumbprint, "thumbprint", "", "SHA-1 in tickets")
	flag.Parse()

	secret, err := os.ReadFile(*password)
	must(err)
	pair, err := tls.LoadX509KeyPair(*certificate, *key)
	must(err)
	if host, port, err := net.SplitHostPort(*screen); err == nil {
		screens.host, screens.port = host, port
	}
	model := simulator.VPX()
	model.Host, model.Machine = 0, 4
	if *esx {
		model = simulator.ESX()
	}
	must(model.Create())
	model.Service.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	model.Service.Listen = &url.URL{
		User: url.UserPassword(*user, strings.TrimSpace(string(secret))), Host: *listen, Path: "/sdk",
	}
	model.Service.RegisterEndpoints = true
	server := model.Service.NewServer()
	var host *url.URL
	if *esx {
		host = model.Service.Listen
	}
	server.Config.Handler = front(server.Config.Handler, host)
	if !*esx {
		server.Config.Handler = automation(server.Config.Handler, model.Service.Listen.User, *ended, *only, server.URL)
	}
	if !*esx {
		settle(server.URL)
	}
	log.Printf("ready %s", server.URL.Host)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
	server.Close()
	model.Remove()
}
