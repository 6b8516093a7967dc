package entropy

// squashKnots is 2^22/(1+e^-x) at x = -12, -11.75 … 12: the only numbers of the
// format that come from analysis, so they stand here as integers.
var squashKnots = [97]int32{
	26, 33, 42, 55, 70, 90, 115, 148,
	190, 244, 314, 403, 518, 665, 853, 1096,
	1407, 1806, 2319, 2977, 3821, 4905, 6296, 8081,
	10371, 13307, 17071, 21895, 28072, 35977, 46083, 58987,
	75440, 96374, 122944, 156560, 198919, 252022, 318172, 399925,
	499973, 620955, 765148, 934072, 1128022, 1345622, 1583520, 1836365,
	2097152, 2357939, 2610784, 2848682, 3066282, 3260232, 3429156, 3573349,
	3694331, 3794379, 3876132, 3942282, 3995385, 4037744, 4071360, 4097930,
	4118864, 4135317, 4148221, 4158327, 4166232, 4172409, 4177233, 4180997,
	4183933, 4186223, 4188008, 4189399, 4190483, 4191327, 4191985, 4192498,
	4192897, 4193208, 4193451, 4193639, 4193786, 4193901, 4193990, 4194060,
	4194114, 4194156, 4194189, 4194214, 4194234, 4194249, 4194262, 4194271,
	4194278,
}

// squash turns an opinion in 256ths of a logit, -3072 < x < 3072, into a
// probability of 22 bits, on straight lines between the knots.
func squash(x int32) int32 {
	x += 3072
	i, f := x>>6, x&63
	return (squashKnots[i]*(64-f) + squashKnots[i+1]*f) >> 6
}

// stretchTable is the inverse of squash at the middle of each 4096th: the
// smallest x, -2047 <= x <= 2047, whose probability is not below it.
var stretchTable = func() (t [4096]int32) {
	x := int32(-2047)
	for i := range t {
		for x < 2047 && squash(x) < int32(i)<<10+512 {
			x++
		}
		t[i] = x
	}
	return t
}()

// rates is how far a slot moves after n observations: 1/(n+1.6) in 2^16ths.
var rates = func() (t [1024]int32) {
	for i := range t {
		t[i] = int32(655360 / (10*i + 16))
	}
	return t
}()
