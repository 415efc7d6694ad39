package node

import (
	"context"
	"fmt"

	"github.com/holdfast-net/holdfast/admin"
)

// Addresses implements api.Node.
func (n *node) Addresses() []admin.AddressGroup { return nil }

// Release implements api.Node.
func (n *node) Release(_ context.Context, group, _ string) (admin.ReleaseResult, error) {
	if group == "" {
		return admin.ReleaseResult{}, nil
	}
	return admin.ReleaseResult{}, &admin.Error{Code: admin.CodeUnknown, Text: fmt.Sprintf("this node has no group and no address %s", group), Remedy: "it has none at all; add `addresses` to its file"}
}
