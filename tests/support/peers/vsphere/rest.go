// SPDX-License-Identifier: Apache-2.0

package main

// What a vCenter's Automation API has and the simulator has not: /api/session, the lists of what there is, a machine, its
// power and its copy, in both forms (/api, /rest), as its description writes them. Strict where the simulator is not: only
// the one user with the one password signs in, a query's key or a body's that is not in the description is refused, and
// every request is written down ("asked METHOD TARGET"), each session, too ("session ID").
//
// Known differences from a real one: machines and lists say the least that they may; a machine says a password as well,
// which none does; nobody's rights are looked at; sessions do not end by being idle.

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/view"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	oldSession = "/rest/com/vmware/cis/session"
	newSession = "/api/session"
	shown      = "vmware-api-session-id"
)

// What is listed: the part of the path, the type, and the key of its id.
var lists = map[string][2]string{
	"vm":            {"VirtualMachine", "vm"},
	"host":          {"HostSystem", "host"},
	"folder":        {"Folder", "folder"},
	"cluster":       {"ClusterComputeResource", "cluster"},
	"datacenter":    {"Datacenter", "datacenter"},
	"resource-pool": {"ResourcePool", "resource_pool"},
	"datastore":     {"Datastore", "datastore"},
	"network":       {"Network", "network"},
}

type rest struct {
	inner http.Handler
	user  *url.Userinfo
	ended string
	only  string
	sdk   *url.URL
	mutex sync.Mutex
	made  map[string]time.Time
}

func automation(inner http.Handler, user *url.Userinfo, ended, only string, sdk *url.URL) http.Handler {
	return &rest{inner: inner, user: user, ended: ended, only: only, sdk: sdk, made: map[string]time.Time{}}
}

// refuse answers with an error as the form of the API writes it.
func refuse(w http.ResponseWriter, path string, status int, kind, words string) {
	messages := []map[string]interface{}{{"id": "vcsim", "default_message": words, "args": []string{}}}
	var body interface{} = map[string]interface{}{
		"type": "com.vmware.vapi.std.errors." + kind, "value": map[string]interface{}{"messages": messages},
	}
	if strings.HasPrefix(path, "/api") {
		body = map[string]interface{}{"error_type": strings.ToUpper(kind), "messages": messages}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func answer(w http.ResponseWriter, path string, status int, value interface{}) {
	if strings.HasPrefix(path, "/rest") {
		value = map[string]interface{}{"value": value}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}

func (s *rest) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if !strings.HasPrefix(path, "/api") && !strings.HasPrefix(path, "/rest") {
		s.inner.ServeHTTP(w, r)
		return
	}
	log.Printf("asked %s %s", r.Method, r.RequestURI)
	if _, has := r.Header["Cookie"]; has {
		log.Printf("wrong: a cookie came")
	}
	if path == newSession || path == oldSession {
		if s.only != "" && !strings.HasPrefix(path, s.only) {
			http.NotFound(w, r)
			return
		}
		s.session(w, r)
		return
	}
	if r.Header.Get("Authorization") != "" {
		log.Printf("wrong: a name and a password came with a request")
	}
	if !s.counts(r.Header.Get(shown)) {
		refuse(w, path, http.StatusUnauthorized, "unauthenticated", "Unable to authenticate user")
		return
	}
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if len(parts) < 3 || parts[1] != "vcenter" || lists[parts[2]][0] == "" {
		// The simulator's own.
		s.inner.ServeHTTP(w, r)
		return
	}
	s.vcenter(w, r, parts[2:])
}

// counts says whether a session is one, and not over.
func (s *rest) counts(id string) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	made, known := s.made[id]
	if over, err := os.Stat(s.ended); s.ended != "" && err == nil && made.Before(over.ModTime()) {
		return false
	}
	return known
}

func (s *rest) session(w http.ResponseWriter, r *http.Request) {
	path, id := r.URL.Path, r.Header.Get(shown)
	begins := r.Method == http.MethodPost && r.URL.RawQuery == ""
	if !begins && !s.counts(id) {
		refuse(w, path, http.StatusUnauthorized, "unauthenticated", "Unable to authenticate user")
		return
	}
	asked := httptest.NewRequest(http.MethodPost, oldSession, nil)
	switch {
	case begins:
		name, password, _ := r.BasicAuth()
		wanted, _ := s.user.Password()
		if name != s.user.Username() || password != wanted {
			refuse(w, path, http.StatusUnauthorized, "unauthenticated", "Invalid credentials")
			return
		}
		asked.SetBasicAuth(name, password)
		asked.Header.Set("vmware-use-header-authn", "true")
	case r.Method == http.MethodDelete:
		asked.Method = http.MethodDelete
		s.mutex.Lock()
		delete(s.made, id)
		s.mutex.Unlock()
	case r.Method == http.MethodGet && path == newSession, r.Method == http.MethodPost && r.URL.RawQuery == "~action=get":
		asked.URL.RawQuery = "~action=get"
	default:
		refuse(w, path, http.StatusNotFound, "not_found", "no such operation")
		return
	}
	asked.Header.Set(shown, id)
	told := httptest.NewRecorder()
	s.inner.ServeHTTP(told, asked)
	var value struct {
		Value interface{} `json:"value"`
	}
	_ = json.Unmarshal(told.Body.Bytes(), &value)
	status := told.Code
	if made, is := value.Value.(string); begins && is {
		s.mutex.Lock()
		s.made[made] = time.Now()
		s.mutex.Unlock()
		log.Printf("session %s", made)
		w.Header().Set(shown, made)
		if path == newSession {
			status = http.StatusCreated
		} else if r.Header.Get("vmware-use-header-authn") == "" {
			http.SetCookie(w, &http.Cookie{Name: shown, Value: made, Path: "/rest"})
		}
	}
	answer(w, path, status, value.Value)
}

func (s *rest) vcenter(w http.ResponseWriter, r *http.Request, parts []string) {
	ctx, path := context.Background(), r.URL.Path
	place := *s.sdk
	place.User = s.user
	client, err := govmomi.NewClient(ctx, &place, true)
	must(err)
	defer func() { _ = client.Logout(ctx) }()
	body, err := io.ReadAll(r.Body)
	must(err)
	query := r.URL.Query()
	for key, all := range query {
		is := key == "action" || key == "names" || key == "filter.names"
		if !is || key == "action" && len(all) > 1 {
			refuse(w, path, http.StatusBadRequest, "invalid_argument", "unknown key "+key)
			return
		}
	}
	word := query.Get("action")
	switch {
	case len(parts) == 1 && r.Method == http.MethodGet && word == "":
		names := append(query["names"], query["filter.names"]...)
		answer(w, path, http.StatusOK, s.list(ctx, client, parts[0], names))
	case len(parts) == 1 && parts[0] == "vm" && r.Method == http.MethodPost && word == "clone":
		s.clone(w, r, client, body)
	case len(parts) >= 2 && parts[0] == "vm":
		s.machine(w, r, client, parts[1:], word, body)
	default:
		refuse(w, path, http.StatusNotFound, "not_found", "no such operation")
	}
}

func (s *rest) list(ctx context.Context, client *govmomi.Client, what string, names []string) []map[string]interface{} {
	all, err := view.NewManager(client.Client).CreateContainerView(ctx, client.ServiceContent.RootFolder, []string{lists[what][0]}, true)
	must(err)
	defer func() { _ = all.Destroy(ctx) }()
	rows := []map[string]interface{}{}
	var found []mo.ManagedEntity
	must(all.Retrieve(ctx, []string{lists[what][0]}, []string{"name"}, &found))
	for _, one := range found {
		is := len(names) == 0
		for _, name := range names {
			is = is || name == one.Name
		}
		if !is {
			continue
		}
		row := map[string]interface{}{lists[what][1]: one.Self.Value, "name": one.Name}
		if what == "vm" {
			row["power_state"] = s.power(ctx, client, one.Self)
		}
		rows = append(rows, row)
	}
	return rows
}

func (s *rest) power(ctx context.Context, client *govmomi.Client, vm types.ManagedObjectReference) string {
	var machine mo.VirtualMachine
	must(property.DefaultCollector(client.Client).RetrieveOne(ctx, vm, []string{"runtime.powerState"}, &machine))
	return map[types.VirtualMachinePowerState]string{
		"poweredOn": "POWERED_ON", "poweredOff": "POWERED_OFF", "suspended": "SUSPENDED",
	}[machine.Runtime.PowerState]
}

// find gives a machine by its id.
func (s *rest) find(ctx context.Context, client *govmomi.Client, id string) (*mo.VirtualMachine, bool) {
	var machine mo.VirtualMachine
	of := types.ManagedObjectReference{Type: "VirtualMachine", Value: id}
	err := property.DefaultCollector(client.Client).RetrieveOne(ctx, of, []string{"name", "parent", "resourcePool"}, &machine)
	return &machine, err == nil
}

func (s *rest) machine(w http.ResponseWriter, r *http.Request, client *govmomi.Client, parts []string, word string, body []byte) {
	ctx, path := context.Background(), r.URL.Path
	machine, is := s.find(ctx, client, parts[0])
	if !is {
		refuse(w, path, http.StatusNotFound, "not_found", "Virtual machine with identifier '"+parts[0]+"' does not exist.")
		return
	}
	vm := object.NewVirtualMachine(client.Client, machine.Self)
	what := strings.Join(parts[1:], "/")
	if old := strings.TrimPrefix(what, "power/"); old != what && strings.HasPrefix(path, "/rest") && word == "" {
		what, word = "power", old
	}
	var task *object.Task
	var err error
	switch r.Method + " " + what + " " + word {
	case "GET  ":
		answer(w, path, http.StatusOK, map[string]interface{}{
			"name": machine.Name, "power_state": s.power(ctx, client, machine.Self), "vnc_password": "canary-of-a-machine",
		})
		return
	case "GET power ":
		answer(w, path, http.StatusOK, map[string]interface{}{"state": s.power(ctx, client, machine.Self)})
		return
	case "DELETE  ":
		task, err = vm.Destroy(ctx)
	case "POST power start":
		task, err = vm.PowerOn(ctx)
	case "POST power stop":
		task, err = vm.PowerOff(ctx)
	case "POST power reset":
		task, err = vm.Reset(ctx)
	case "POST power suspend":
		task, err = vm.Suspend(ctx)
	default:
		refuse(w, path, http.StatusNotFound, "not_found", "no such operation")
		return
	}
	if len(bytes.TrimSpace(body)) > 0 && string(bytes.TrimSpace(body)) != "{}" {
		refuse(w, path, http.StatusBadRequest, "invalid_argument", "a body that is not in the description")
		return
	}
	must(err)
	if err := task.Wait(ctx); err != nil {
		refuse(w, path, http.StatusBadRequest, "already_in_desired_state", err.Error())
		return
	}
	status := http.StatusNoContent
	if strings.HasPrefix(path, "/rest") {
		status = http.StatusOK
	}
	w.WriteHeader(status)
}

func (s *rest) clone(w http.ResponseWriter, r *http.Request, client *govmomi.Client, body []byte) {
	ctx, path := context.Background(), r.URL.Path
	var wrapped struct {
		Spec json.RawMessage `json:"spec"`
	}
	if strings.HasPrefix(path, "/rest") {
		if err := json.Unmarshal(body, &wrapped); err != nil || wrapped.Spec == nil {
			refuse(w, path, http.StatusBadRequest, "invalid_argument", "no spec")
			return
		}
		body = wrapped.Spec
	}
	var spec struct {
		Name   string `json:"name"`
		Source string `json:"source"`
	}
	reader := json.NewDecoder(bytes.NewReader(body))
	reader.DisallowUnknownFields()
	if err := reader.Decode(&spec); err != nil {
		refuse(w, path, http.StatusBadRequest, "invalid_argument", fmt.Sprint(err))
		return
	}
	source, is := s.find(ctx, client, spec.Source)
	if !is {
		refuse(w, path, http.StatusNotFound, "not_found", "no such machine")
		return
	}
	folder := object.NewFolder(client.Client, *source.Parent)
	task, err := object.NewVirtualMachine(client.Client, source.Self).Clone(ctx, folder, spec.Name, types.VirtualMachineCloneSpec{
		Location: types.VirtualMachineRelocateSpec{Pool: source.ResourcePool},
	})
	must(err)
	told, err := task.WaitForResult(ctx, nil)
	must(err)
	answer(w, path, http.StatusOK, told.Result.(types.ManagedObjectReference).Value)
}
