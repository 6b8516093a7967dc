package catalog

import (
	"slices"
	"strings"
)

// Paths lists the files of the state in force whose path begins with prefix, in
// order: Paths("baselines/") are the baselines. Only files that Locate would
// find in the role that may name them are listed.
func (c *Client) Paths(prefix string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == nil {
		return nil
	}
	var found []string
	for role, m := range c.state.Targets {
		for name := range m.Signed.Targets {
			if strings.HasPrefix(name, prefix) && roleFor(name) == role {
				found = append(found, name)
			}
		}
	}
	slices.Sort(found)
	return found
}
