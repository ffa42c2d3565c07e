package etcdctl

import "testing"

// TestUsersRolesAndLogins is the same session with etcdctl 3.4 and with
// holdfastctl, against three members: each command may reach another one.
func TestUsersRolesAndLogins(t *testing.T) {
	programs(t, 3, func(c *ctl) {
		c.play([]line{
			{args: "user add root:secret", out: "User root created\n"},
			{args: "user add alice:wonder", out: "User alice created\n"},
			{args: "user add alice:wonder", out: "Error: etcdserver: user name already exists\n", fails: true},
			{args: "role add app", out: "Role app created\n"},
			{args: "role grant-permission app readwrite /app/ --prefix", out: "Role app updated\n"},
			{args: "role grant-permission app read one", out: "Role app updated\n"},
			{args: "user grant-role alice app", out: "Role app is granted to user alice\n"},
			{args: "role get app", out: "Role app\nKV Read:\n\t[/app/, /app0) (prefix /app/)\n\tone\nKV Write:\n\t[/app/, /app0) (prefix /app/)\n"},
			{args: "user get alice", out: "User: alice\nRoles: app\n"},
			{args: "user list", out: "alice\nroot\n"},
			{args: "role list", out: "app\n"},
			{args: "auth enable", out: "Authentication Enabled\n"},
			{args: "put /app/x 1 --user alice:wonder", out: "OK\n"},
			{args: "get /app/ --prefix --user alice:wonder", out: "/app/x\n1\n"},
			{args: "put other 1 --user alice:wonder", out: "Error: etcdserver: permission denied\n", fails: true},
			{args: "get /app/x", out: "Error: etcdserver: permission denied\n", fails: true}, // As the certificate says, which is no user's.
			{args: "user list --user alice:wonder", out: "Error: etcdserver: permission denied\n", fails: true},
			{args: "member list --user alice:wonder -w json", out: "{members}\n"},
			{args: "user passwd alice --interactive=false --user root:secret", stdin: "land\n", out: "Password updated\n"},
			{args: "get /app/x --user alice:wonder", out: "Error: etcdserver: authentication failed, invalid user ID or password\n", fails: true},
			{args: "get /app/x --user alice:land", out: "/app/x\n1\n"},
			{args: "role revoke-permission app one --user root:secret", out: "Permission of key one is revoked from role app\n"},
			{args: "user revoke-role alice app --user root:secret", out: "Role app is revoked from user alice\n"},
			{args: "role delete app --user root:secret", out: "Role app deleted\n"},
			{args: "user delete alice --user root:secret", out: "User alice deleted\n"},
			{args: "user delete root --user root:secret", out: "Error: etcdserver: invalid auth management\n", fails: true},
			{args: "auth disable --user root:secret", out: "Authentication Disabled\n"},
			{args: "get /app/x", out: "/app/x\n1\n"},
		})
	})
}
