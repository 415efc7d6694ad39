package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/holdfast-net/holdfast/internal/api"
	"github.com/holdfast-net/holdfast/internal/config"
	"github.com/holdfast-net/holdfast/internal/probe"
)

// A metricsListener shows the metrics over TCP, to whoever asks.
type metricsListener struct {
	net.Listener
	end context.CancelFunc // of serve; nil before
}

// openMetrics listens where the file says.
func (n *node) openMetrics(c *config.Config) (err error) {
	n.metrics, err = listenMetrics(c.Metrics.Listen)
	return err
}

// listenMetrics listens; nil for no address.
func listenMetrics(a config.Address) (*metricsListener, error) {
	if a == (config.Address{}) {
		return nil, nil //nolint:nilnil // none is wanted
	}
	at := netip.AddrPortFrom(a.Addr, a.Port)
	text := at.String()
	if !a.Addr.IsValid() { // every address, of both families where there are both
		at = netip.AddrPortFrom(netip.IPv6Unspecified(), a.Port)
		text = fmt.Sprintf(":%d", a.Port)
	}
	l, err := net.Listen("tcp", text)
	if err != nil {
		return nil, fmt.Errorf("metrics.listen: %w", probe.ExplainListen(at, err))
	}
	return &metricsListener{Listener: l}, nil
}

// Close ends a listener that was never served. Calling it again, or after serve,
// does nothing.
func (m *metricsListener) Close() error {
	if err := m.Listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// showMetrics serves the metrics until the node, or end, ends it. The caller
// holds reloading, or nothing runs yet.
func (n *node) showMetrics(m *metricsListener) {
	ctx, end := context.WithCancel(n.serving)
	m.end = end
	server := api.NewMetrics(api.MetricsOptions{Metrics: n.Metrics(), Node: n.name(), Version: n.o.Version, Logger: n.log})
	n.tasks.Go(func() {
		defer end()
		if err := server.Serve(ctx, m.Listener); err != nil {
			n.log.Error("metrics are no longer shown over TCP", "address", m.Addr().String(), "err", err)
		}
	})
}

// replaceMetrics shows the metrics at m from now on, and says so. The caller
// holds reloading.
func (n *node) replaceMetrics(m *metricsListener) string {
	if n.metrics != nil {
		n.metrics.end()
	}
	n.metrics = m
	if m == nil {
		return "metrics: no longer shown over TCP"
	}
	n.showMetrics(m)
	return "metrics: shown on " + m.Addr().String()
}
