package admin_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-net/holdfast/admin"
)

// Ask a node, and tell an answer, a refusal and no answer apart.
func ExampleClient() {
	dir, err := os.MkdirTemp("", "holdfast-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "holdfast.sock")
	stop := standIn(socket)
	defer stop()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	node := admin.Client{Socket: socket} // the zero Client asks the node of this machine

	st, err := node.Status(ctx)
	fmt.Println(st.Node, "is", st.State, err)

	_, err = node.ChangeBackend(ctx, "redis", "r1", admin.BackendCommand{Do: admin.DoDrain})
	if refused, ok := errors.AsType[*admin.Error](err); ok {
		fmt.Println(refused.Code+":", refused)
	}

	stop()
	_, err = node.Status(ctx)
	if _, ok := errors.AsType[*admin.UnreachableError](err); ok {
		fmt.Println("no answer")
	}
	// Output:
	// lb1 is well <nil>
	// forbidden: uid 1000 may read, and not change anything: run it as root
	// no answer
}

// standIn answers in the place of a node.
func standIn(socket string) (stop func()) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(admin.HeaderAPI, admin.APIVersion)
		fmt.Fprint(w, `{"node": "lb1", "state": "well"}`)
	})
	mux.HandleFunc("POST /v1/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(admin.HeaderAPI, admin.APIVersion)
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"code": "forbidden", "error": "uid 1000 may read, and not change anything", "remedy": "run it as root"}`)
	})
	l, err := net.Listen("unix", socket)
	if err != nil {
		panic(err)
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	return func() { srv.Close(); <-done }
}
