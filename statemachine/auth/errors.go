package auth

import "errors"

// Outcomes, equal on all members.
var (
	ErrRootUser      = errors.New("there is no user root")
	ErrRootRole      = errors.New("user root does not have the role root")
	ErrNobody        = errors.New("nobody asks: neither a token nor a certificate names a user")
	ErrDenied        = errors.New("permission denied")
	ErrOldRevision   = errors.New("users or roles have changed since the token was made")
	ErrNotEnabled    = errors.New("authentication is not enabled")
	ErrFailed        = errors.New("user or password is wrong")
	ErrNoPassword    = errors.New("user has no password")
	ErrUserName      = errors.New("user name is empty")
	ErrUserExists    = errors.New("user already exists")
	ErrUserNotFound  = errors.New("user not found")
	ErrRoleName      = errors.New("role name is empty")
	ErrRoleExists    = errors.New("role already exists")
	ErrRoleNotFound  = errors.New("role not found")
	ErrNotGranted    = errors.New("role is not granted to the user")
	ErrNoPermission  = errors.New("no permission is given")
	ErrNotPermitted  = errors.New("permission is not granted to the role")
	ErrManagement    = errors.New("would lock everybody out, or is no range")
	ErrRowTooLarge   = errors.New("user or role would become too large")
	errForeignRow    = errors.New("key and name differ")
	errRevisionOfRow = errors.New("auth row has no revision")
)
