package daemon

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-net/holdfast/admin"
)

// findInFile finds a backend that the file has. The caller holds changing.
func (d *Daemon) findInFile(serviceName, backendName string) (*service, fileBackend, error) {
	if err := d.known(serviceName, backendName); err != nil {
		return nil, fileBackend{}, err
	}
	for _, s := range d.services {
		if s.name != serviceName {
			continue
		}
		for _, b := range s.file.backends() {
			if b.Name == backendName {
				return s, b, nil
			}
		}
	}
	return nil, fileBackend{}, &admin.Error{
		Code:   admin.CodeRefused,
		Text:   fmt.Sprintf("backend %s of service %s is no longer in the file: only its connections are left", backendName, serviceName),
		Remedy: fmt.Sprintf("holdfast backend reset %s %s ends those now", serviceName, backendName),
	}
}

// known says what is wrong with the names of a service and a backend, each of
// which may be empty for any. What is removed is known while it has connections.
func (d *Daemon) known(serviceName, backendName string) error {
	d.mu.Lock()
	all := slices.Concat(d.services, d.leaving)
	var services, backends []string
	var chosen []*service
	for _, s := range all {
		if !slices.Contains(services, s.name) {
			services = append(services, s.name)
		}
		if serviceName == "" || s.name == serviceName {
			chosen = append(chosen, s)
			for _, b := range s.file.Relay.Backends {
				if !slices.Contains(backends, b.Name) {
					backends = append(backends, b.Name)
				}
			}
		}
	}
	d.mu.Unlock()
	if len(chosen) == 0 && serviceName != "" {
		return unknown("service "+serviceName, "", services)
	}
	if backendName == "" || slices.Contains(backends, backendName) {
		return nil
	}
	for _, s := range chosen {
		for _, b := range s.relay.Backends() {
			if b.Name == backendName {
				return nil
			}
		}
	}
	if serviceName == "" {
		return unknown("backend "+backendName, " in any service", backends)
	}
	return unknown("backend "+backendName, " in service "+serviceName, backends)
}

// unknown says that there is no such thing, and what there is.
func unknown(what, where string, there []string) error {
	const most = 10
	owner := "there are"
	if len(there) == 1 {
		owner = "there is"
	}
	if where != "" {
		owner = "it has"
	}
	if where == " in any service" {
		owner = "they have"
	}
	list := "none"
	if n := len(there); n > most {
		list = strings.Join(there[:most], ", ") + fmt.Sprintf(" and %d more", n-most)
	} else if n > 0 {
		list = strings.Join(there, ", ")
	}
	return &admin.Error{Code: admin.CodeUnknown, Text: fmt.Sprintf("there is no %s%s; %s %s", what, where, owner, list)}
}
