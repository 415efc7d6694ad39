package node

import "io"

// Options is what a node runs with, besides its file.
type Options struct {
	File string // the configuration; required

	// EventsFile is a file that gets a JSON line for each event. Lines are appended,
	// and the file is opened anew at each reload, as logrotate needs it. "-" is
	// Out; "" is none.
	EventsFile string

	Out io.Writer // for events, see EventsFile; required where that is "-"
	Err io.Writer // what the node logs; required

	Version string // of the program, as status shows it
	Loops   int    // event loops of the relay; 0: one for each processor

	// Elector is the program that owns addresses, with its arguments; empty: this
	// one, see [elector.Options].
	Elector []string

	// DropCapabilities gives up, for the whole process and for good, what it holds
	// and the node cannot need once it has started; see [daemon.DropCapabilities].
	DropCapabilities bool
}
