package node

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// catchSignals catches what the node acts on. That also makes them count for the
// first process of a container, which has no defaults. They stay caught: a
// SIGHUP in the last moment must not turn a good end into a bad one.
func catchSignals() <-chan os.Signal {
	ch := make(chan os.Signal, 8)
	signal.Notify(ch, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR2)
	// One that was ignored before the start stays so: that is how a shell keeps
	// Ctrl-C from what runs in the background.
	if !signal.Ignored(syscall.SIGINT) {
		signal.Notify(ch, syscall.SIGINT)
	}
	// Whoever reads the log or the events may end first: that is an error of a
	// write, and no reason to die without telling anybody.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return ch
}

// handle acts on signals until ctx ends. What asks for the end goes on to stops.
func (n *node) handle(ctx context.Context, signals <-chan os.Signal, stops chan<- os.Signal) {
	handing, handedOver := context.WithCancel(ctx)
	defer handedOver()
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-signals:
			switch sig {
			case syscall.SIGHUP:
				// Beside this loop: looking up host names must not keep SIGTERM waiting.
				n.tasks.Go(func() { n.reloadBySignal(ctx) })
			case syscall.SIGUSR2:
				n.log.Warn("upgrade is not supported by this version: nothing has changed", "signal", sig.String())
			default:
				if n.stopping.Load() { // the second: everybody is told now
					handedOver()
					pass(stops, sig)
					break
				}
				n.stop("signal: " + sig.String())
				n.tasks.Go(func() {
					// While the peer takes the addresses, who is here is served on.
					n.addresses.leave(handing, "signal: "+sig.String())
					pass(stops, sig)
				})
			}
		}
	}
}

// pass passes a signal on; the third has nothing to add.
func pass(stops chan<- os.Signal, sig os.Signal) {
	select {
	case stops <- sig:
	default:
	}
}

func (n *node) reloadBySignal(ctx context.Context) {
	// What became of it is logged, and in status.
	_, _ = n.Reload(ctx, "signal SIGHUP")
}

// stop says, once, that the node is about to end.
func (n *node) stop(why string) {
	if n.stopping.Swap(true) {
		return
	}
	close(n.stopped)
	n.notified(n.manager.Stopping("stopping: " + why))
}
