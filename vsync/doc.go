// Package vsync is virtual synchrony for Go: process groups whose members see the same messages in the same order
// between the same changes of membership, over a fast data plane.
//
// # A first program
//
// A process attaches to a system, declares what it does with messages, and joins a group:
//
//		sys, err := vsync.Start(ctx)
//		if err != nil { … }
//		defer sys.Close()
//
//		stock := map[string]int{}
//		g := sys.NewGroup("inventory")
//		g.Handle(Move, func(m *vsync.Message) { apply(stock, m.Payload) })
//		g.OnView(func(v *vsync.View) { log.Print(v) })
//		g.OnMakeState(func(ctx context.Context, v *vsync.View, w *vsync.StateWriter) error {
//			return w.Put(encode(stock))
//		})
//		g.OnLoadState(func(piece []byte) error { return decode(piece, stock) })
//	if err := g.Join(ctx); err != nil { … }
//
//	err = g.SendBytes(ctx, vsync.Ordered, Move, payload)
//
// Every member runs the handler for every message, the sender too. Ordered messages arrive in one order at all members,
// so a state that changes only in handlers of ordered messages is the same everywhere. A process that joins gets the
// state as it is at its first view, and from then on the messages behind it.
//
// # Delivery
//
// A group calls its handlers on two goroutines: one for multicasts, views and state, one for point-to-point messages.
// On each, one handler runs at a time, in delivery order; handlers of different groups run independently. A view
// arrives in its place among the messages: what is delivered before it was delivered before it at every member that
// sees both. A slow handler holds up its own group only. Its unhandled messages queue up to a limit, then the group's
// senders wait.
//
// Handlers may call anything, with two exceptions that follow from this. A call that would have to wait for the
// handler's own group, a send without room or a Flush, returns ErrWouldBlock at once instead; start a goroutine for
// such calls. And Leave, Terminate and Close, called inside a handler, only start: they cannot wait for the handler
// that called them.
//
// # Errors and the end
//
// A system ends by Close, when the context given to Start ends, or when the other processes declare this one failed: it
// is then poisoned and must not go on as if it were a member. Done is closed at that moment, whoever waits in a call of
// the package gets an error, and every later call returns one for which errors.Is(err, ErrNotRunning) holds. A process
// may start again afterwards: it gets a new Address and is a stranger to its former groups.
//
// # Network
//
// Without configuration a system talks on the loopback interface only, with a multicast TTL of 0: nothing leaves the
// host. WithInterfaces, or ISIS_NETWORK_INTERFACES in the environment, names other interfaces. Start reads the
// environment first (see ConfigFromEnv); options override it.
package vsync
