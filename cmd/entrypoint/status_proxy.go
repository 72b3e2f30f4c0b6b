package main

import (
	"fmt"

	"github.com/hotswap-init/entrypoint/internal/swap"
)

// proxyLine says what the proxy carries.
func proxyLine(p *swap.FrontStatus) string {
	if p == nil {
		return ""
	}
	text := fmt.Sprintf("%s, pid %d, %d clients", p.Kind, p.PID, p.Clients)
	if p.PID == 0 {
		text = p.Kind + ", being started again"
	}
	if p.Waiting > 0 {
		text += fmt.Sprintf(", %d waiting", p.Waiting)
	}
	for _, g := range p.Generations {
		text += fmt.Sprintf("; generation %d: ", g.Generation)
		if p.Kind == "tcp" {
			text += fmt.Sprintf("%d connections", g.Connections)
		} else {
			text += fmt.Sprintf("%d requests, %d upgraded", g.Requests, g.Upgrades)
		}
	}
	if p.Restarts > 0 {
		text += fmt.Sprintf("; started again %d times", p.Restarts)
	}
	if !p.Known {
		text += " (it has not answered)"
	}
	return text
}
