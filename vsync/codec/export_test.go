package codec

// ForcePortable makes a registry copy numbers one by one, as on a machine whose numbers lie the other way round.
func ForcePortable(r *Registry) { r.portable = true }
