// Package systemd tells the service manager how the program is: that it is
// ready, reloads its configuration, stops, still lives. It speaks the protocol
// of sd_notify(3), and does nothing for a program that systemd did not start.
package systemd
