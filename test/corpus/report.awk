# Turns the lines of bench into a Markdown table and an SVG chart (file svg).
{
	name = $1; tool = $3
	if (!(name in size)) { order[++n] = name; size[name] = $2 }
	bytes[name, tool] = $4; made[name, tool] = $5 " s, " $6 " MiB"; applied[name, tool] = $7 " s, " $8 " MiB"
	if (tool != "sealant" && (!(name in best) || $4 < best[name])) best[name] = $4
}
END {
	m = split("sealant bsdiff xdelta3 zstd brotli hdiffz", all, " ")
	k = 0
	for (t = 1; t <= m; t++) for (i = 1; i <= n; i++) if ((order[i], all[t]) in bytes) { tools[++k] = all[t]; break }
	label["sealant"] = "sealant"; label["bsdiff"] = "bsdiff"; label["xdelta3"] = "xdelta3 -9"; label["zstd"] = "zstd -22 --patch-from"; label["brotli"] = "brotli -D"; label["hdiffz"] = "HDiffPatch, lzma2"
	head = "| pair | image |"; rule = "|---|---|"
	for (t = 1; t <= k; t++) { head = head " " label[tools[t]] " |"; rule = rule "---|" }
	print head " of the best peer |"
	print rule "---|"
	for (i = 1; i <= n; i++) {
		name = order[i]
		row = sprintf("| %s | %.1f MB | **%d**", name, size[name] / 1e6, bytes[name, "sealant"])
		for (t = 2; t <= k; t++) row = row " | " ((name, tools[t]) in bytes ? bytes[name, tools[t]] : "–")
		if (name in best) { r = bytes[name, "sealant"] / best[name]; logs += log(r); counted++; row = row sprintf(" | %.1f %% |", 100 * r) }
		else row = row " | – |"
		print row
	}
	if (counted) printf "\nGeometric mean: %.1f %% of the best peer.\n", 100 * exp(logs / counted)
	print "\nCPU seconds (user and system, of the whole process) and peak memory, making:\n"
	head = "| pair |"; rule = "|---|"
	for (t = 1; t <= k; t++) { head = head " " tools[t] " |"; rule = rule "---|" }
	print head; print rule
	for (i = 1; i <= n; i++) {
		row = "| " order[i]
		for (t = 1; t <= k; t++) row = row " | " ((order[i], tools[t]) in made ? made[order[i], tools[t]] : "–")
		print row " |"
	}
	print "\nThe same for applying, the least of seven runs:\n"
	print head " of bspatch |"; print rule "---|"
	for (i = 1; i <= n; i++) {
		name = order[i]
		row = "| " name
		for (t = 1; t <= k; t++) row = row " | " ((name, tools[t]) in applied ? applied[name, tools[t]] : "–")
		split(applied[name, "sealant"], a, " "); split(applied[name, "bsdiff"], b, " ")
		if (b[1] > 0) { r = a[1] / b[1]; log3 += log(r); counted3++; print row sprintf(" | %.1f × |", r) }
		else print row " | – |"
	}
	if (counted3) printf "\nGeometric mean: %.1f × the CPU time of bspatch.\n", exp(log3 / counted3)
	print "\nMeasured on " machine "."
	print versions "."
	colour["sealant"] = "#0b7a4b"; colour["bsdiff"] = "#8a8f98"; colour["xdelta3"] = "#b4b8bf"; colour["zstd"] = "#d3d6db"; colour["brotli"] = "#c9bfae"; colour["hdiffz"] = "#9aa7b8"; step = k * 13 + 10
	height = 40 + n * step
	printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n", height > svg
	printf "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n<text x=\"16\" y=\"22\" font-size=\"14\" font-weight=\"bold\">Bytes of patch, of those of the largest</text>\n" > svg
	for (i = 1; i <= n; i++) {
		name = order[i]; most = 1; y = 40 + (i - 1) * step
		for (t = 1; t <= k; t++) if (bytes[name, tools[t]] > most) most = bytes[name, tools[t]]
		printf "<text x=\"16\" y=\"%d\">%s</text>\n", y + 28, name > svg
		for (t = 1; t <= k; t++) if ((name, tools[t]) in bytes) {
			w = 470 * bytes[name, tools[t]] / most
			printf "<rect x=\"130\" y=\"%d\" width=\"%.1f\" height=\"11\" fill=\"%s\"/><text x=\"%.1f\" y=\"%d\" font-size=\"10\">%s %d</text>\n", y + (t - 1) * 13, w, colour[tools[t]], 136 + w, y + (t - 1) * 13 + 9, tools[t], bytes[name, tools[t]] > svg
		}
	}
	print "</svg>" > svg
}
