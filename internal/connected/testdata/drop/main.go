// Drop opens a Roster, gives up every capability, and uses it: it prints what
// it knows of a connection that it makes then.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/holdfast-net/holdfast/internal/connected"
	"github.com/holdfast-net/holdfast/internal/sys"
)

func main() {
	if err := drop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func drop() error {
	states, changes := make(chan connected.State, 100), make(chan connected.Change, 100)
	r, err := connected.New(connected.Options{
		OnState: func(s connected.State) { states <- s },
		OnChange: func(list []connected.Change) {
			for _, c := range list {
				changes <- c
			}
		},
	})
	if err != nil {
		return err
	}
	r.Open()
	if err := sys.KeepCapabilities(0); err != nil {
		return err
	}
	if held, _, err := sys.HeldCapabilities(); held != 0 || err != nil {
		return fmt.Errorf("it holds %s, %w", held, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	state := <-states

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := r.SetAddresses([]netip.Addr{netip.MustParseAddr("127.0.0.1")}); err != nil {
		return err
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err != nil {
		return err
	}
	c := <-changes
	numbers, err := r.Numbers(ctx, nil)
	cancel()
	return errors.Join(err, <-ended, json.NewEncoder(os.Stdout).Encode(map[string]any{
		"source": state.Source, "reason": state.Reason, "numbers": len(numbers), "has_isn": c.Record.HasISN,
	}))
}
