package vsync

// OtherVersion registers and handles another definition of Order. It is set by the tests outside of the package.
var OtherVersion struct {
	Register func(s *System) error
	Handle   func(g *Group, c Code) error
}

func registerOther(s *System)         { must(OtherVersion.Register(s)) }
func handleOther(g *Group, code Code) { must(OtherVersion.Handle(g, code)) }
