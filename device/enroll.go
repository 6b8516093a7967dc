package device

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sealant-os/sealant/device/build"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/trust/identity"
	"github.com/sealant-os/sealant/trust/ticket"
)

// EnrollOptions are what enrolment needs.
type EnrollOptions struct {
	Token  string `json:"token"`  // a one-time word from the operator; "" where the server knows the TPM
	Server string `json:"server"` // base URL, "" for the configured one
	DryRun bool   `json:"dry_run"`

	// Identity says where the device's key shall be: IdentityAuto (which ""
	// means too), IdentityTPM or IdentityFile. A key that is there stays.
	Identity string `json:"identity"`
}

// Enrolled is what came of it.
type Enrolled struct {
	Device    string `json:"device"` // full id
	Short     string `json:"short"`  // as people see it
	Product   string `json:"product"`
	OSVersion string `json:"os_version"`
	Server    string `json:"server"`
	Identity  string `json:"identity"` // where the key is: tpm or file
	Cryptexes int    `json:"cryptexes"`

	// Endorsement is the TPM's id, for the server's list: SHA-256 of its
	// endorsement key, 64 hexadecimal digits; "" with the key in a file.
	Endorsement string `json:"endorsement,omitempty"`
}

type enrollRequest struct {
	Token     string `json:"token"`
	PublicKey string `json:"public_key"`
	Product   string `json:"product"`
	Baseline  string `json:"baseline"`
	Challenge string `json:"challenge,omitempty"`
	Answer    []byte `json:"answer,omitempty"`
}

type enrollAnswer struct {
	Device         string `json:"device"`
	BaselineTicket string `json:"baseline_ticket"`
}

// Enroll gives the device an identity and makes it known to its server, which
// answers with the ticket of the baseline. The last thing that is written is
// the enrolment itself: after a crash Enroll is simply called again, and goes
// on with the same key.
func (d *Device) Enroll(ctx context.Context, o EnrollOptions, actor Actor, report Report) (Enrolled, error) {
	fail := func(err error) (Enrolled, error) { return Enrolled{}, err }
	server := strings.TrimSuffix(o.Server, "/")
	if server == "" {
		server = d.server()
	}
	switch {
	case len(o.Token) > 512 || strings.ContainsAny(o.Token, " \t\r\n"):
		return fail(fault.New(fault.Usage, "cannot enrol: the token is malformed").Hint("the operator makes one: sealsrv enroll"))
	case server == "":
		return fail(fault.New(fault.Usage, "cannot enrol: no server is named").Hint("--server URL, or server.url in %s/agent.toml", d.Store.ConfigDir()))
	case o.Identity != "" && o.Identity != IdentityAuto && o.Identity != IdentityTPM && o.Identity != IdentityFile:
		return fail(fault.New(fault.Usage, "cannot enrol: the key can be in %s or %s, or %s, not in %q", IdentityTPM, IdentityFile, IdentityAuto, o.Identity))
	case !strings.HasPrefix(server, "http://") && !strings.HasPrefix(server, "https://"):
		return fail(fault.New(fault.Usage, "cannot enrol: %q is not an http or https URL", server))
	}
	if o.Token == "" {
		if o.Identity == IdentityFile || d.wouldKeep(o.Identity) != IdentityTPM {
			return fail(noToken(errors.New("there is none, or the key is in a file")))
		}
		o.Identity = IdentityTPM // a file won't do
	}
	if e, err := d.Store.Enrolment(); err == nil {
		return fail(fault.New(fault.Failed, "cannot enrol: this device is %s at %s already", identity.ID(e.Device), e.Server))
	} else if !errors.Is(err, store.ErrEmpty) {
		return fail(err)
	}
	b, err := d.baseline()
	if err != nil {
		return fail(fmt.Errorf("cannot enrol: %w", err))
	}
	if _, err := store.ReadFile(d.Store.CatalogRootPath(), maxRoot); err != nil {
		return fail(fmt.Errorf("cannot enrol: the catalog's root is not in the operating system: %w", err))
	}
	if o.DryRun {
		r := Enrolled{Product: b.Product, OSVersion: b.OSVersion, Server: server, Identity: d.wouldKeep(o.Identity), Cryptexes: len(b.Cryptexes)}
		if r.Endorsement = d.endorsementID(r.Identity); r.Endorsement == "" && o.Token == "" {
			return fail(noToken(errors.New("the TPM does not say which one it is")))
		}
		return r, nil
	}
	if err := d.Store.Create(); err != nil {
		return fail(err)
	}
	lock, err := d.Store.Lock()
	if err != nil {
		return fail(err)
	}
	defer lock.Unlock()
	if err := d.linkBase(ctx, b, report); err != nil {
		return fail(err)
	}
	if err := d.makeIdentity(o.Identity, report); err != nil {
		return fail(err)
	}
	id, der, err := d.announce(ctx, server, o.Token, b, report)
	if err != nil {
		return fail(err)
	}
	report.done("known", "device %s at %s", id, server)
	if err := d.adoptBaseline(b, der); err != nil {
		return fail(err)
	}
	if err := d.Store.Reserve(); err != nil {
		return fail(err)
	}
	e := store.Enrolment{Device: store.Sum(id), Product: b.Product, Server: server, Time: d.Now().UTC().Format(time.RFC3339)}
	if err := d.Store.WriteEnrolment(e); err != nil {
		return fail(err)
	}
	err = d.Store.Append(store.Record{
		Time: d.Now(), Event: "enrolled", Set: d.Store.SlotID(store.Base), Reason: "enrolled", Actor: string(actor), Text: server,
	})
	place := d.identityPlace()
	return Enrolled{
		Device: id.Hex(), Short: id.String(), Product: b.Product, OSVersion: b.OSVersion, Server: server,
		Identity: place, Cryptexes: len(b.Cryptexes), Endorsement: d.endorsementID(place),
	}, err
}

// linkBase records where the baseline's images are, after reading each of them.
func (d *Device) linkBase(ctx context.Context, b release.Baseline, report Report) error {
	for _, c := range b.Cryptexes {
		if err := d.Store.LinkBase(store.Digest(c.Digest), c.Name); err != nil {
			return err
		}
		if !build.Intact(ctx, d.Store, c.Digest) {
			if err := ctx.Err(); err != nil {
				return err
			}
			return fault.New(fault.Seal, "cannot use the operating system's image %s: it does not have the baseline's digest", d.Store.BaseImagePath(c.Name))
		}
	}
	report.done("baseline", "%s %s, %s, all bytes read", b.Product, release.DisplayVersion(b.OSVersion), cryptexes(len(b.Cryptexes)))
	return nil
}

// makeIdentity makes the device's key and nonces, unless they are there.
func (d *Device) makeIdentity(place string, report Report) error {
	if _, err := d.key(); err != nil {
		if !errors.Is(err, store.ErrEmpty) {
			return err
		}
		text, err := d.makeKey(place, report)
		if err != nil {
			return err
		}
		if err := d.Store.WriteIdentityKey(text); err != nil {
			return err
		}
	}
	if _, err := d.Store.Nonces(); !errors.Is(err, store.ErrEmpty) {
		return err
	}
	return d.firstNonces()
}

// announce tells the server who this device is. The answer's ticket is checked,
// and looked up in the public log, before anything is kept.
func (d *Device) announce(ctx context.Context, server, token string, b release.Baseline, report Report) (identity.ID, []byte, error) {
	var none identity.ID
	key, err := d.key()
	if err != nil {
		return none, nil, err
	}
	public, err := identity.MarshalPublic(key.Public())
	if err != nil {
		return none, nil, err
	}
	id, err := d.keyID()
	if err != nil {
		return none, nil, err
	}
	request := enrollRequest{
		Token: token, PublicKey: base64.StdEncoding.EncodeToString(public), Product: b.Product, Baseline: b.Digest().String(),
	}
	if token == "" {
		if request.Challenge, request.Answer, err = d.proveTPM(ctx, server); err != nil {
			return none, nil, err
		}
	}
	var answer enrollAnswer
	if err := d.upstreamAt(server).Post(ctx, "/v1/enroll", request, &answer); err != nil {
		return none, nil, err
	}
	if answer.Device != id.Hex() {
		return none, nil, fault.New(fault.Refused, "cannot enrol: the server calls this device %.12q, its key says %.12q", answer.Device, id.Hex())
	}
	der, err := decodeTicket(answer.BaselineTicket)
	if err != nil {
		return none, nil, err
	}
	t, err := d.verifyTicket(der, b, ticket.Expect{OfBaseline: true, Cryptexes: claims(b.Cryptexes)})
	if err != nil {
		return none, nil, err
	}
	return id, der, d.checkLog(ctx, server, t.Claims, report)
}

// adoptBaseline writes the baseline's set and makes it current and, last, base.
func (d *Device) adoptBaseline(b release.Baseline, der []byte) error {
	set := setOf(b, "", 0, b.Cryptexes, der)
	if err := d.Store.AddSet(set); err != nil {
		return err
	}
	if err := d.Store.Point(store.Current, set.ID); err != nil {
		return err
	}
	return d.Store.Point(store.Base, set.ID)
}
