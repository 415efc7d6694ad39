package admin

import (
	"strconv"
	"strings"
)

// Error is a request that the node refused, as both sides see it.
type Error struct {
	Code   string        `json:"code"`             // see Error codes
	Text   string        `json:"error"`            // what failed, on which object, and why
	Remedy string        `json:"remedy,omitempty"` // what to do
	Config []ConfigError `json:"config,omitempty"` // what is wrong with the file, for a reload
}

// Error codes.
const (
	CodeInvalid   = "invalid"   // the request cannot be understood: HTTP 400
	CodeForbidden = "forbidden" // reading is allowed, this is not: HTTP 403
	CodeUnknown   = "unknown"   // there is no such service, backend, connection or path: HTTP 404
	CodeRefused   = "refused"   // it is understood, and not possible as things stand: HTTP 409
	CodeBusy      = "busy"      // the node answers as many requests as it wants to at once: HTTP 503
	CodeInternal  = "internal"  // the node is at fault: HTTP 500
)

// Error says what failed and what to do, in one line unless the configuration
// has several mistakes.
func (e *Error) Error() string {
	text := e.Text
	if e.Remedy != "" {
		text += ": " + e.Remedy
	}
	for _, c := range e.Config {
		text += "\n" + c.String()
	}
	return text
}

// String is file:line:column: path: what, with the excerpt below.
func (c ConfigError) String() string {
	var b strings.Builder
	b.WriteString(c.Place())
	if c.Path != "" {
		b.WriteString(": " + c.Path)
	}
	b.WriteString(": " + c.What)
	if c.Excerpt != "" {
		b.WriteString("\n" + strings.TrimRight(c.Excerpt, "\n"))
	}
	return b.String()
}

// Place is file:line:column, without what is not known.
func (c ConfigError) Place() string {
	switch {
	case c.Line == 0:
		return c.File
	case c.Column == 0:
		return c.File + ":" + strconv.Itoa(c.Line)
	}
	return c.File + ":" + strconv.Itoa(c.Line) + ":" + strconv.Itoa(c.Column)
}
