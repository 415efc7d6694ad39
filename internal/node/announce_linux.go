package node

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/holdfast-net/holdfast/internal/config"
	"github.com/holdfast-net/holdfast/internal/daemon"
	"github.com/holdfast-net/holdfast/internal/elector"
	"github.com/holdfast-net/holdfast/internal/rtnl"
)

// announceOn has the groups' addresses announced, besides on their own links, on
// those by which the backends of their services are reached: hosts there may know
// the addresses. An error says which of them could not be found, and is no reason
// not to own an address.
func announceOn(groups []elector.Group, c *config.Config, services []daemon.ServiceOptions) error {
	if len(groups) == 0 || len(services) == 0 {
		return nil
	}
	h, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer h.Close()
	list, err := h.Links()
	if err != nil {
		return err
	}
	names := make(map[int]string)
	for _, l := range list {
		if l.MAC != [6]byte{} { // on others nothing can be announced
			names[l.Index] = l.Name
		}
	}
	var errs []error
	for i := range groups {
		g := &groups[i]
		for _, k := range c.ServicesOf(&c.Addresses[i]) {
			for _, b := range services[k].Relay.Backends {
				name, err := linkTo(h, names, b.Address.AddrPort().Addr())
				if err != nil {
					errs = append(errs, fmt.Errorf("service %s, backend %s: %w", c.Services[k].Name, b.Name, err))
				}
				if name != "" && name != g.Interface && !slices.Contains(g.AnnounceOn, name) {
					g.AnnounceOn = append(g.AnnounceOn, name)
				}
			}
		}
		slices.Sort(g.AnnounceOn) // another order of backends is no other group
	}
	return errors.Join(errs...)
}

// linkTo is the link by which a backend is reached; "" for a unix socket, for one
// of this machine, and where there is no way at present.
func linkTo(h *rtnl.Handle, names map[int]string, addr netip.Addr) (string, error) {
	if !addr.IsValid() {
		return "", nil
	}
	path, err := h.PathTo(addr)
	if errors.Is(err, rtnl.ErrNoPath) {
		return "", nil
	}
	return names[path.Index], err
}
