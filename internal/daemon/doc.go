// Package daemon makes running services out of the relay and the health checks:
// what a check finds reaches the relay, what the relay notices in passing
// reaches the check, and what happens is logged, counted, and written as events.
package daemon
