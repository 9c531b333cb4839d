// SPDX-License-Identifier: Apache-2.0

// The calls that govc makes for its verbs, by govmomi unchanged: govc itself is in no package that could be had here. Like
// govc it keeps its sessions between runs, in the folder that GOVMOMI_HOME names, and signs in where they do not count.
//
//	govc URL CA USER TOKEN VERB [NAME…]    prints one line of JSON
//
//	ls             the machines, by the inventory (govc ls /DC0/vm/…)
//	vm.info NAME   a machine by its name: its id and state
//	vm.power STATE NAME
//	vm.clone NAME COPY
//	tags.ls        the tags
//	tags.create CATEGORY TAG
//	tags.attach TAG NAME
//	tags.attached.ls TAG, tags.attached.ls -r NAME
//	library.ls, library.create NAME
//	session.ls     whether the sessions that were kept count, without signing in
//	session.logout ends them
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/url"
	"os"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/session/cache"
	"github.com/vmware/govmomi/vapi/library"
	"github.com/vmware/govmomi/vapi/rest"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	log.SetFlags(0)
	place, err := soap.ParseURL(os.Args[1])
	must(err)
	place.User = url.UserPassword(os.Args[3], os.Args[4])
	verb, names := os.Args[5], os.Args[6:]
	ctx := context.Background()
	trust := func(c *soap.Client) error { return c.SetRootCAs(os.Args[2]) }
	kept := &cache.Session{URL: place}
	soapy, resty := new(vim25.Client), new(rest.Client)

	said := func(value interface{}) { must(json.NewEncoder(os.Stdout).Encode(value)) }
	calls := func() *vim25.Client {
		must(kept.Login(ctx, soapy, trust))
		return soapy
	}
	requests := func() *rest.Client {
		must(kept.Login(ctx, resty, trust))
		return resty
	}
	finder := func() *find.Finder {
		finder := find.NewFinder(calls(), true)
		center, err := finder.DefaultDatacenter(ctx)
		must(err)
		return finder.SetDatacenter(center)
	}
	machine := func(name string) *object.VirtualMachine {
		vm, err := finder().VirtualMachine(ctx, name)
		must(err)
		return vm
	}
	done := func(task *object.Task, err error) {
		must(err)
		must(task.Wait(ctx))
		said("success")
	}

	switch verb {
	case "ls":
		all, err := finder().VirtualMachineList(ctx, "*/*")
		must(err)
		found := []string{}
		for _, vm := range all {
			found = append(found, vm.Name())
		}
		said(found)
	case "vm.info":
		vm := machine(names[0])
		var told mo.VirtualMachine
		must(property.DefaultCollector(calls()).RetrieveOne(ctx, vm.Reference(), []string{"name", "runtime.powerState"}, &told))
		said(map[string]string{"id": vm.Reference().Value, "name": told.Name, "state": string(told.Runtime.PowerState)})
	case "vm.power":
		vm := machine(names[1])
		if names[0] == "on" {
			done(vm.PowerOn(ctx))
		} else {
			done(vm.PowerOff(ctx))
		}
	case "vm.clone":
		vm := machine(names[0])
		var told mo.VirtualMachine
		must(property.DefaultCollector(calls()).RetrieveOne(ctx, vm.Reference(), []string{"parent", "resourcePool"}, &told))
		where := types.VirtualMachineRelocateSpec{Pool: told.ResourcePool}
		done(vm.Clone(ctx, object.NewFolder(calls(), *told.Parent), names[1], types.VirtualMachineCloneSpec{Location: where}))
	case "tags.ls":
		all, err := tags.NewManager(requests()).GetTags(ctx)
		must(err)
		found := []string{}
		for _, tag := range all {
			found = append(found, tag.Name)
		}
		said(found)
	case "tags.create":
		manager := tags.NewManager(requests())
		category, err := manager.CreateCategory(ctx, &tags.Category{Name: names[0], Cardinality: "SINGLE"})
		must(err)
		_, err = manager.CreateTag(ctx, &tags.Tag{Name: names[1], CategoryID: category})
		must(err)
		said("success")
	case "tags.attach":
		must(tags.NewManager(requests()).AttachTag(ctx, names[0], machine(names[1])))
		said("success")
	case "tags.attached.ls":
		manager := tags.NewManager(requests())
		found := []string{}
		if names[0] == "-r" {
			all, err := manager.GetAttachedTags(ctx, machine(names[1]))
			must(err)
			for _, tag := range all {
				found = append(found, tag.Name)
			}
		} else {
			all, err := manager.ListAttachedObjects(ctx, names[0])
			must(err)
			for _, one := range all {
				found = append(found, one.Reference().Value)
			}
		}
		said(found)
	case "library.ls":
		all, err := library.NewManager(requests()).GetLibraries(ctx)
		must(err)
		found := []string{}
		for _, one := range all {
			found = append(found, one.Name)
		}
		said(found)
	case "library.create":
		store, err := finder().DefaultDatastore(ctx)
		must(err)
		backing := library.StorageBackings{DatastoreID: store.Reference().Value, Type: "DATASTORE"}
		_, err = library.NewManager(requests()).CreateLibrary(ctx, library.Library{
			Name: names[0], Type: "LOCAL", Storage: []library.StorageBackings{backing},
		})
		must(err)
		said("success")
	case "session.ls":
		counts := map[string]string{}
		for name, client := range map[string]cache.Client{"soap": soapy, "rest": resty} {
			is, err := kept.Load(ctx, client, trust)
			counts[name] = fmt.Sprint(is)
			if err != nil {
				counts[name] = err.Error()
			}
		}
		said(counts)
	case "session.logout":
		must(session.NewManager(calls()).Logout(ctx))
		must(requests().Logout(ctx))
		said("success")
	default:
		log.Fatalf("no verb %q", verb)
	}
}
