// Package demo is the command khamsin demo: a group of processes on one host that keeps an inventory, of which one is
// killed without a word while another joins in the middle of the traffic, and a parent that checks that all agree in
// the end.
//
// The parent starts the members, tells them what to do (command) and hears what they see (report), as JSON lines over
// pipes; with the mem transport the members are goroutines of the parent and the pipes are channels. Every member
// multicasts its share of the rows of the input in total order. Each keeps, beside the totals, a rolling hash of all
// messages since the group began, which the transferred state hands on; at every view it reports count and hash, so the
// parent sees whether all had the same messages in the same order in front of each view.
package demo
