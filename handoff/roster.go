package handoff

// roster models the order of a SO_REUSEPORT group as the kernel keeps it: members are indexed in the order in which
// they joined (TCP: listen, UDP: bind), and when one leaves, the last member moves into its place. It is pure: it
// does no system calls. Members are compared by identity.
type roster[T comparable] struct {
	members []T
}

// join appends a member and returns its index.
func (r *roster[T]) join(m T) int {
	r.members = append(r.members, m)
	return len(r.members) - 1
}

// leave removes a member; the last one moves into the hole.
func (r *roster[T]) leave(m T) bool {
	i := r.index(m)
	if i < 0 {
		return false
	}
	last := len(r.members) - 1
	r.members[i] = r.members[last]
	var zero T
	r.members[last] = zero
	r.members = r.members[:last]
	return true
}

// index is the member's index, -1 if it is none.
func (r *roster[T]) index(m T) int {
	for i := range r.members {
		if r.members[i] == m {
			return i
		}
	}
	return -1
}

// moves reports whether keep would get another index if gone left.
func (r *roster[T]) moves(keep, gone T) bool {
	return keep != gone && r.index(keep) == len(r.members)-1 && r.index(gone) >= 0
}
