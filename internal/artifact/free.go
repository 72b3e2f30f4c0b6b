package artifact

// FreeMemory is how many bytes of memory this process may still allocate, as far as its control groups and the machine tell. Once it is sure
// that there are enough, it looks no closer.
func FreeMemory(enough int64) int64 { return systemMemory.free(enough) }
