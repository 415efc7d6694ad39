//go:build linux

package scene

import (
	"context"

	"github.com/holdfast-net/holdfast/lab"
)

// PortInUse is the scene of a restart that finds its port taken.
func PortInUse() Scene {
	return Scene{
		Name:  "port-in-use",
		Title: "a restart finds its port taken: the message names the holder and the way out",
		Story: `A relay is stopped, and before it is started again another program has taken its
port. The message must name that program, its process number and what to do;
after that was done, the relay starts.`,
		Variants: []Variant{{Demo: true}},
		Demo:     true,
		Run:      portInUse,
	}
}

func portInUse(ctx context.Context, e *Env) (*Verdict, error) {
	t, err := lab.OneArm(lab.Size{Nodes: 1})
	if err != nil {
		return nil, err
	}
	l, err := e.Start(ctx, t)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	v := e.Verdict()
	return v, nil
}
