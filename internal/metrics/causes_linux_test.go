package metrics

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-net/holdfast/relay"
)

// TestCauses holds that every way in which the relay ends a connection is shown
// from the start, under the name that the relay gives it, and no other.
func TestCauses(t *testing.T) {
	var want []string
	for c := relay.Cause(1); !strings.HasPrefix(c.String(), "Cause("); c++ {
		want = append(want, c.String())
	}
	got := slices.Clone(refusals)
	for _, e := range endings {
		if slices.Contains(refusals, e.cause) {
			t.Errorf("%s is a refusal, and an ending", e.cause)
		}
		if by := []string{relay.ByRelay.String(), relay.ByClient.String(), relay.ByBackend.String()}; !slices.Contains(by, e.by) {
			t.Errorf("%s by %s: the relay has only %v", e.cause, e.by, by)
		}
		got = append(got, e.cause)
	}
	slices.Sort(want)
	slices.Sort(got)
	if d := cmp.Diff(want, slices.Compact(got)); d != "" {
		t.Errorf("causes (-relay +metrics)\n%s", d)
	}
}
