package release

// Paths of the documents and files in the catalog.
const (
	RecallPath  = "recall/list.json"
	AdvicePath  = "advice/list.json"
	RolloutPath = "rollout/list.json"
)

// BaselinePath is where the baseline with that digest stands.
func BaselinePath(d Digest) string { return "baselines/" + d.String() + ".json" }

// ManifestPath is where an improvement's manifest stands.
func ManifestPath(id string) string { return "releases/" + id + ".json" }

// PatchPath is where a patch or antipatch with that digest stands.
func PatchPath(d Digest) string { return "patches/" + d.String() }

// ImagePath is where the whole image with that digest stands.
func ImagePath(d Digest) string { return "images/" + d.String() }
