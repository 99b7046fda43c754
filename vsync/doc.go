// Package vsync is virtual synchrony for Go: groups of processes whose members see the same messages in the same order
// between the same changes of membership, over a fast data plane.
//
// # A first program
//
// A process attaches to a system of processes with [Start]. It makes a handle for a group, says with functions what is
// to be done with messages, and joins:
//
//	sys, err := vsync.Start(ctx)
//	if err != nil { … }
//	defer sys.Close()
//
//	prices := map[string]float64{}
//	g := sys.NewGroup("inventory")
//	g.Handle(SetPrice, func(product string, price float64) { prices[product] = price })
//	g.Handle(GetPrice, func(product string) (float64, error) {
//		if price, ok := prices[product]; ok {
//			return price, nil
//		}
//		return 0, errors.New("no such product")
//	})
//	if err := g.Join(ctx); err != nil { … }
//
//	err = g.OrderedSend(ctx, SetPrice, "bolt", 0.25)
//	replies, err := vsync.Query[float64](ctx, g, vsync.All, GetPrice, "bolt")
//
// Every member runs the handler of SetPrice for every message, the sender too, and all in the same order: a state that
// changes only in handlers of ordered messages is the same at all members. The query runs GetPrice at every member and
// returns what they returned. Any number of processes may run this program; those that use the same group name meet.
// Programs in the directory examples begin with less and end with more than this.
//
// # Messages and handlers
//
// A message has a request code, which the application chooses, and values: numbers, strings, slices, the library's
// Address and View, and types of the application's own once they are registered with [Register]. [Group.Handle] takes a
// plain function and finds out by itself which values it wants. A code may have functions for several lists of types;
// each message runs those whose arguments are exactly its values, in the order in which they were added.
//
//	g.Handle(Update, func(name string, val int) { … })  // g.Send(ctx, Update, "Smith", 100)
//	g.Handle(Update, func(id, val int) { … })           // g.Send(ctx, Update, 4711, 100)
//	g.Handle(Update, func(m *vsync.Message) { … })      // both, and whatever else comes
//
// A function may take a [*Message] first, which says who sent the message, in which view and how. [Handle1], [Send1]
// and their kin are the same for types that are known when the program is compiled: nothing is boxed, and neither
// sending nor handling allocates. [Group.SendBytes] and a handler that takes only a *Message pass bytes along as they
// are: the payload is read where the network put it, and can be kept without a copy with [Message.Keep].
//
// Members of a group must have handlers for the same codes and types, with the same fields in registered types. A
// process that differs is refused when it joins, with a [*SignatureError] that names the first difference.
//
// # Orders
//
// Send delivers the messages of one sender in the order sent: enough when all updates of some data come from one
// member. OrderedSend delivers the messages of all senders in one order. CausalSend delivers no message before those
// that its sender had seen. SafeSend delivers a message nowhere before enough members hold it (see [WithSafeCopies]).
// [Group.Flush] waits until all members hold what this process sent: before it tells an outsider that something is
// done. [Group.As] and [Group.To] make targets of one flavour, or for some of the members.
//
// # Queries
//
// [Query] sends a request and waits for replies of one type: a number of them, those of a majority, or of all members
// of the view in which the request was delivered. A member that leaves or fails is waited for no longer. What is
// returned says who replied what, who declined, who is gone and who was silent. OrderedQuery asks all members in one
// and the same state. [QueryEach] hands the replies over as they come. [Ask] asks one member.
//
// A handler replies by what it returns, or with [Message.Reply]. It may decline (Null), make the caller's query fail
// (Abort), or stay silent; a handler that does nothing declines. To reply later, or from another goroutine, it calls
// [Message.Detach]. A query waits as long as its context's deadline says, and what happens then is up to
// [Group.OnTimeout]: silent members can be ignored, make the query fail, or be reported as failed.
//
// # Views
//
// The members of a group see the same sequence of views: lists of members, the oldest first. A view arrives in its
// place among the messages: what is delivered before it at one member was delivered before it at every member that sees
// both. [Group.OnView] adds a function for all views, [Group.Watch] one for a single process, [Group.WaitForView] waits
// for a view. [View.MyRank] and [View.Size] split work: see examples/whitepages.
//
// # State
//
// A process that joins gets the group's state as it is at its first view, and from then on the messages behind it.
// [Group.OnMakeState] writes it, value by value, at the oldest member; [Group.OnLoadState] adds functions that take the
// values, found by their types as handlers are. [Group.OnInit] runs in the process that brings the group to life.
//
// # Delivery
//
// A group calls its functions on two goroutines: one for multicasts, views and state, one for point-to-point messages.
// On each, one function runs at a time, in delivery order; those of different groups run independently. A slow handler
// holds up its own group only: its unhandled messages queue up to a limit, then the group's senders wait. One that runs
// for longer than [WithHandlerDeadline] is named in the log, and [WithHandlerLimit] ends a process that is stuck.
//
// Handlers may call anything, with two exceptions that follow from this. A call that would have to wait for the
// handler's own group (a send without room, a Flush, a Query, WaitForView) returns [ErrWouldBlock] at once instead;
// start a goroutine for such calls, and give it a context of its own. And Leave, Terminate and Close, called inside a
// handler, only start: they cannot wait for the handler that called them.
//
// # Errors and the end
//
// A system ends by Close, when the context given to Start ends, or when the other processes declare this one failed: it
// is then poisoned and must not go on as if it were a member. Done is closed at that moment, whoever waits in a call of
// the package gets an error, and every later call returns one for which errors.Is(err, ErrNotRunning) holds. A process
// may start again afterwards: it gets a new Address and is a stranger to its former groups. Any number of systems can
// run in one process.
//
// # Looking inside
//
// [System.IOStats] counts packets, [System.State] and [Group.State] are summaries that marshal to JSON, [Group.Trace]
// logs each delivery, goroutines carry pprof labels of the group and the code that they work for, and package
// vsync/prom shows the numbers to Prometheus. The library reports to log/slog: see [WithLogger].
//
// # Network and settings
//
// Without configuration a system talks on the loopback interface only, with a multicast TTL of 0: nothing leaves the
// host. WithInterfaces, or ISIS_NETWORK_INTERFACES in the environment, names other interfaces. Start reads the
// environment first (see [ConfigFromEnv]); options override it. All faults of a configuration are reported at once.
package vsync
