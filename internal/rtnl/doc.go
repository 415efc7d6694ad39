// Package rtnl configures links, addresses, routes and forwarding entries by
// rtnetlink. It is the only user of the netlink library, so that the rest of
// the module deals in netip types and one error form.
package rtnl
