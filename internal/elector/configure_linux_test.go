package elector

import (
	"errors"
	"testing"

	"github.com/holdfast-net/holdfast/vip"
)

// A taker is an owner that only takes settings.
type taker struct {
	owner
	has []vip.Group
	err error
}

func (o *taker) Configure(groups []vip.Group) error {
	if o.err == nil {
		o.has = groups
	}
	return o.err
}

// Of settings that wait for each other the later ones win, in whatever order they
// get their turn.
func TestSettingsInTheirOrder(t *testing.T) {
	o := &taker{}
	s := &server{owner: o}
	ses := &session{out: newOutbox()}
	give := func(turn int64, name string) string {
		s.configure(ses, &configure{ID: uint64(turn), Settings: Settings{Groups: []Group{group(name)}}}, turn)
		m := ses.out.take()
		if m == nil || m.Result == nil || m.Result.ID != uint64(turn) {
			t.Fatalf("settings %d were answered by %+v", turn, m)
		}
		return m.Result.Error
	}
	in := func(name string) {
		t.Helper()
		if len(o.has) != 1 || o.has[0].Name != name || s.settings.Groups[0].Name != name {
			t.Errorf("in force are %v (the owner), %v; want %s", o.has, s.settings.Groups, name)
		}
	}
	if said := give(2, "second"); said != "" {
		t.Error(said)
	}
	if said := give(1, "first"); said != errOvertaken.Error() {
		t.Errorf("settings that came before those in force: %q", said)
	}
	in("second")
	o.err = errors.New("refused")
	if said := give(4, "fourth"); said != "refused" {
		t.Errorf("settings that the owner refuses: %q", said)
	}
	o.err = nil
	if said := give(3, "third"); said != "" { // nothing newer is in force
		t.Error(said)
	}
	in("third")
}
