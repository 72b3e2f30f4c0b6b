package proxy

import "log/slog"

var quiet = slog.New(slog.DiscardHandler)
