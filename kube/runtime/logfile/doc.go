// Package logfile is the logs of containers: files of lines
//
//	TIME stdout|stderr F|P TEXT
//
// as the interface of container runtimes has them, so that tools which read those read
// ours. P is a part of a line that goes on in the next line of the same stream, F its end.
// A file of 10 MB is renamed to NAME.1, that to NAME.2, and so on; five are kept.
//
// The one who writes rotates. A crash leaves at most a last line that was cut, and never
// a file without its name.
package logfile
