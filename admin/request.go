package admin

// DefaultSocket is where a node answers unless its configuration says
// otherwise; SocketVariable is the variable of the environment that names
// another one for clients.
const (
	DefaultSocket  = "/run/holdfast/holdfast.sock"
	SocketVariable = "HOLDFAST_SOCKET"
)

// Services is the answer of /v1/services.
type Services struct {
	Services []Service `json:"services"` // in the order of the file
}

// Backends is the answer of /v1/backends.
type Backends struct {
	Backends []Backend `json:"backends"` // by service, in the order of the file
}

// Events is the answer of /v1/events.
type Events struct {
	Events []Event `json:"events"` // the oldest first
}

// BackendCommand changes a backend by hand. Do is the last part of the path;
// Weight is the body.
type BackendCommand struct {
	Do     string `json:"-"`                // see Backend commands
	Weight int    `json:"weight,omitempty"` // for DoWeight: 0 to 65535, 0 is drain
}

// Backend commands.
const (
	DoDrain  = "drain"  // weight 0: it keeps its connections and gets no new ones
	DoResume = "resume" // as the file says, again
	DoWeight = "weight" // another weight than the file's
	DoReset  = "reset"  // tell both ends of each of its connections now; its weight stays
	DoRemove = "remove" // no new connections, its own end within the bounds of drain, and then it is gone
)

// BackendResult is what a BackendCommand did.
type BackendResult struct {
	Text        string `json:"text"`        // a sentence for a person
	Connections int    `json:"connections"` // that it has left; of DoReset: that were told
}

// Reset asks to tell both ends of connections now. A connection must fit
// everything that is given; nothing given at all is refused.
type Reset struct {
	IDs     []uint64 `json:"ids,omitempty"`
	Service string   `json:"service,omitempty"`
	Backend string   `json:"backend,omitempty"`
	Client  string   `json:"client,omitempty"` // as in Filter
}

// ResetResult says what a Reset did.
type ResetResult struct {
	Connections int `json:"connections"` // whose ends were told
}
