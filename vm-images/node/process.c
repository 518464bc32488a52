/* A process that makes the system calls it is told, and says what each returned.
 *
 * Why not a C program for each task? What is to be done is decided in Python, where it can be read, printed and tested;
 * here it is only done. So the host's side (cloudlab/containers/calls.py) writes a program, a list of system calls,
 * and this runs it: one start of a process and one answer for all of them.
 *
 * Standard input, little endian:    mode (1 byte)   mark (16)   then blocks:   length (4)   calls
 * A call:    length of the rest (4)   index (2)   number (2)   errors that are no failure (2, 2; 65535: any)   arguments (1)
 *            length of the child's calls (4)   arguments   child's calls
 * An argument, by its first byte:
 *   i  integer (8)                       s  length (4), bytes: their address, with a NUL behind them
 *   o  size (4): room for an answer that is sent back whole     r  the same, only as much as the call returned
 *   =  index (2): what that call returned        @  index (2): the address of the room of that call
 *   #  index (2), offset (4): an int out of that room       %  index (2), length (4), text with %d: what the call returned in it
 *   v  count (4), each length (4), bytes: the address of an array of strings, as execve(2) wants it
 *   l  the length of the text before it
 *   *  count (4), arguments: the address of an array of 64-bit integers, as clone3(2) wants it
 *
 * A call that returns 0 and has calls for a child (clone, clone3, fork, vfork) is followed by them; the child ends behind the last.
 * Three numbers are no system calls:
 *   65535  passes on what a container prints (keep_log)
 *   65534  waits for a child, and ends as it did (end_as)
 *   65533  fails (ECANCELED) unless its first argument is equal to its third, which is 0 if there is none; the second says of what
 *
 * The answer goes to standard output (mode 'a'), or to standard error behind the mark, and only if a call fails (mode 'f'):
 *   index (2)   returned, or -errno (8)   nanoseconds (8)   length (4)   bytes
 * Several processes answer into one pipe: what is written at once is at most PIPE_BUF long, which the kernel keeps together (pipe(7)),
 * and a longer answer comes in pieces, each with its index.
 * A call that fails ends its process with status 125; in mode 'a' its outcome comes once more, with the index 65535.
 * Standard input behind the last block is left for what is executed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CALLS = 65536, ARGUMENTS = 6, REPORT = 200, MARK = 16, FAILED = 125, LINE = 16384, KEEP_LOG = 65535, END_AS = 65534, CHECK = 65533, ANY = 65535, END = 65535 };

static int64_t returned[CALLS];
static char *room[CALLS];
static char mode, mark[MARK];

/* --- what is read ------------------------------------------------------------------------------------------- */

static uint64_t number(const char **at, int size) {
  uint64_t value = 0;
  memcpy(&value, *at, size);
  *at += size;
  return value;
}

/* A copy of the bytes at *at that stays, with a NUL behind it. */
static char *bytes(const char **at, int64_t *size) {
  uint32_t length = number(at, 4);
  char *copy = malloc(length + 1);
  memcpy(copy, *at, length);
  copy[length] = 0;
  *at += length;
  *size = length;
  return copy;
}

static int read_all(char *into, size_t count) {
  while (count) {
    ssize_t got = read(0, into, count);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return 0;
    into += got, count -= got;
  }
  return 1;
}

/* --- what is answered --------------------------------------------------------------------------------------- */

static char answer[4096]; /* PIPE_BUF */
static size_t answered;

static void write_all(int to, const char *from, size_t count) {
  while (count) {
    ssize_t put = write(to, from, count);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return; /* nobody listens any more */
    from += put, count -= put;
  }
}

static void send_answer(void) {
  write_all(REPORT, answer, answered);
  answered = 0;
}

static void add(const void *from, size_t count) {
  if (count) memcpy(answer + answered, from, count);
  answered += count;
}

static void report(uint16_t index, int64_t result, uint64_t took, const char *from, uint32_t length) {
  enum { HEAD = 2 + 8 + 8 + 4, MOST = sizeof answer - HEAD - MARK };
  do {
    uint32_t piece = length < MOST ? length : MOST;
    if (answered + HEAD + piece > sizeof answer) send_answer();
    add(&index, 2), add(&result, 8), add(&took, 8), add(&piece, 4), add(from, piece);
    from += piece, length -= piece;
  } while (length);
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000ull + time.tv_nsec;
}

/* --- the log of a container --------------------------------------------------------------------------------- */

struct stream {
  int end;
  const char *name;
  char line[LINE];
  size_t length;
  ssize_t left; /* bytes still to be taken; 0: all that come */
};

/* One line as Kubernetes' runtimes write it: time, stream, F (full) or P (part of a line), text. */
static size_t write_line(int log, struct stream *stream, char kind) {
  char text[LINE + 64], stamp[40];
  struct timespec time;
  struct tm parts;
  clock_gettime(CLOCK_REALTIME, &time);
  strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", gmtime_r(&time.tv_sec, &parts));
  int length = snprintf(text, 64, "%s.%09ldZ %s %c ", stamp, time.tv_nsec, stream->name, kind);
  memcpy(text + length, stream->line, stream->length);
  length += stream->length;
  text[length++] = '\n';
  write_all(log, text, length);
  stream->length = 0;
  return length;
}

/* Take what is there; returns the bytes written to the log. At its end (`end`, then, is -1) what is left is part of a line. */
static ssize_t take(int log, struct stream *stream) {
  char data[LINE];
  ssize_t count = read(stream->end, data, sizeof data), written = 0;
  if (count < 0 && (errno == EINTR || errno == EAGAIN)) return 0;
  for (ssize_t i = 0; i < count; i++) {
    if (data[i] == '\n') {
      written += write_line(log, stream, 'F');
      continue;
    }
    stream->line[stream->length++] = data[i];
    if (stream->length == LINE) written += write_line(log, stream, 'P');
  }
  if (count <= 0) stream->end = -1; /* poll(2) passes it over */
  if (stream->left > 0 && (stream->left -= count) <= 0) stream->end = -1;
  if (stream->end < 0 && stream->length) written += write_line(log, stream, 'P');
  return written;
}

/* Arguments: pidfd, standard output, standard error, path of the log, bytes it may hold (it then becomes PATH.1).
 * Returns when the process has ended and what it printed is written. */
static int64_t keep_log(const int64_t *arguments) {
  static struct stream streams[2]; /* large: not on the stack */
  const char *path = (const char *)arguments[3];
  char older[4096];
  struct stream *out = &streams[0], *err = &streams[1];
  int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
  if (log < 0) return -1;
  off_t size = lseek(log, 0, SEEK_END);
  snprintf(older, sizeof older, "%s.1", path);
  out->end = arguments[1], out->name = "stdout", err->end = arguments[2], err->name = "stderr";
  fcntl(out->end, F_SETFL, O_NONBLOCK), fcntl(err->end, F_SETFL, O_NONBLOCK);
  for (int ended = 0; out->end >= 0 || err->end >= 0;) {
    struct pollfd wait[3] = {{out->end, POLLIN, 0}, {err->end, POLLIN, 0}, {ended ? -1 : (int)arguments[0], POLLIN, 0}};
    int ready = poll(wait, 3, ended ? 0 : -1);
    if (ready == 0) break; /* ended, and nothing more to read: what it left running keeps its pipes open */
    for (int i = 0; i < 2; i++)
      if (wait[i].revents) size += take(log, &streams[i]);
    if (wait[2].revents) { /* what it wrote is in the pipes by now; what others write there afterwards may never end */
      ended = 1;
      for (int i = 0; i < 2; i++) streams[i].left = fcntl(streams[i].end, F_GETPIPE_SZ);
    }
    if (size > arguments[4] && arguments[4] > 0) {
      rename(path, older);
      close(log);
      log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
      size = 0;
    }
  }
  for (int i = 0; i < 2; i++)
    if (streams[i].length) write_line(log, &streams[i], 'P');
  close(log);
  return 0;
}

/* Wait for a child, and end with its exit status, as a shell says it: 128 + N if signal N killed it. */
static void end_as(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  _exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

/* --- the calls ---------------------------------------------------------------------------------------------- */

struct call {
  uint16_t index, number;
  uint16_t harmless[2]; /* errors that are no failure */
  int64_t arguments[ARGUMENTS];
  uint32_t size;        /* of the room for its answer */
  const char *text;     /* the last one among its arguments */
  int64_t length;       /* of that text */
  int whole;            /* is all the room sent back, or as much as the call returned? */
};

static int64_t argument(struct call *call, const char **at) {
  char kind = *(*at)++;
  uint16_t index;
  switch (kind) {
    case 's': return (intptr_t)(call->text = bytes(at, &call->length));
    case 'l': return call->length;
    case 'o': case 'r':
      call->size = number(at, 4), call->whole = kind == 'o';
      return (intptr_t)(room[call->index] = calloc(1, call->size + 1));
    case '=': return returned[number(at, 2)];
    case '@': return (intptr_t)room[number(at, 2)];
    case '#': {
      int value;
      index = number(at, 2);
      memcpy(&value, room[index] + number(at, 4), sizeof value);
      return value;
    }
    case '%': {
      index = number(at, 2);
      char *text = bytes(at, &call->length), *made = NULL;
      call->length = asprintf(&made, text, (int)returned[index]);
      return (intptr_t)(call->text = made);
    }
    case 'v': {
      uint32_t count = number(at, 4);
      char **words = calloc(count + 1, sizeof *words);
      for (uint32_t i = 0; i < count; i++) words[i] = bytes(at, &call->length);
      return (intptr_t)words;
    }
    case '*': {
      uint32_t count = number(at, 4);
      int64_t *values = calloc(count + 1, sizeof *values);
      for (uint32_t i = 0; i < count; i++) values[i] = argument(call, at);
      return (intptr_t)values;
    }
    default: return number(at, 8); /* 'i' */
  }
}

static void run(const char *at, size_t length);

/* What is not sent before this call, nobody will hear. */
static int closes_report(const struct call *call) {
  if (call->number == SYS_close) return call->arguments[0] == REPORT;
  return (call->number == SYS_dup2 || call->number == SYS_dup3) && call->arguments[1] == REPORT;
}

static void make(struct call *call, const char *child, uint32_t child_length) {
  const int64_t *a = call->arguments;
  if (child_length || call->number == SYS_execve || call->number == SYS_execveat || closes_report(call)) send_answer();
  if (call->number == END_AS) end_as(a[0]);
  if (call->number == SYS_execve || call->number == SYS_execveat) signal(SIGPIPE, SIG_DFL); /* as a program finds it */
  uint64_t began = now();
  int64_t result = call->number == KEEP_LOG ? keep_log(a)
                   : call->number == CHECK  ? (a[0] != a[2] ? -ECANCELED : 0)
                                            : syscall(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
  if (result == -1) result = -errno; /* before a filter refuses us even the time, and errno is another */
  uint64_t took = now() - began;
  returned[call->index] = result;
  if (child_length && result == 0) {
    run(child, child_length);
    send_answer();
    _exit(0);
  }
  int failed = result < 0 && result > -4096 && call->harmless[0] != ANY && -result != call->harmless[0] && -result != call->harmless[1];
  uint32_t size = result < 0 ? 0 : call->whole ? call->size : result < call->size ? result : call->size;
  if (mode == 'a') report(call->index, result, took, room[call->index], size);
  if (failed) {
    if (mode == 'f') send_answer(), add(mark, MARK), report(call->index, result, took, "", 0);
    if (mode == 'a') report(END, result, 0, "", 0);
    send_answer();
    _exit(FAILED);
  }
}

static void run(const char *at, size_t length) {
  for (const char *end = at + length; at < end;) {
    struct call call = {0};
    const char *next = at + 4;
    next += number(&at, 4);
    call.index = number(&at, 2), call.number = number(&at, 2);
    call.harmless[0] = number(&at, 2), call.harmless[1] = number(&at, 2);
    int count = number(&at, 1);
    uint32_t child_length = number(&at, 4);
    for (int i = 0; i < count && i < ARGUMENTS; i++) call.arguments[i] = argument(&call, &at);
    make(&call, at, child_length);
    at = next;
  }
}

int main(void) {
  char head[4];
  signal(SIGPIPE, SIG_IGN); /* who outlives its caller answers nobody */
  if (!read_all(&mode, 1) || !read_all(mark, MARK)) return FAILED;
  if (fcntl(mode == 'a' ? 1 : 2, F_DUPFD_CLOEXEC, REPORT) != REPORT) return FAILED;
  while (read_all(head, 4)) {
    const char *at = head;
    uint32_t length = number(&at, 4);
    char *calls = malloc(length); /* stays: children run what is in it */
    if (!calls || !read_all(calls, length)) return FAILED;
    run(calls, length);
    send_answer();
    free(calls);
  }
  return 0;
}
