@0xd94f3b06a81c7e52;
# Supervisor and ranks of a node, and supervisors of two nodes. Add only at the next ordinal.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("troupe::schemas::wire");

using Epoch = import "control_message.capnp".Epoch;

struct HostPort {
  host @0 :Text;
  port @1 :UInt16;
}

struct RankLost {
  rank @0 :Int32;
  cause @1 :Text;
  restarts @2 :UInt32;
}

struct SegmentWanted {
  epoch @0 :Epoch;
  ranks @1 :Int32;
}

struct PhaseChanged {
  phase @0 :UInt8;
  epoch @1 :Epoch;
  detail @2 :Text;
}

struct GiveUp {
  exitCode @0 :Int32;
  reason @1 :Text;
}

struct Heartbeat {
  protocol @0 :UInt32;
  buildId @1 :Text;
  nodeRank @2 :Int32;
  nnodes @3 :Int32;
  number @4 :UInt64;
}

struct SupervisorMessage {
  union {
    controlPlaneAt @0 :HostPort;
    segment @1 :Epoch;
    rankLost @2 :RankLost;
    drainPatienceMs @3 :UInt64;
    ping @4 :UInt64;
    pong @5 :UInt64;
    controlPlaneListens @6 :HostPort;
    segmentWanted @7 :SegmentWanted;
    phaseChanged @8 :PhaseChanged;
    announce @9 :Text;
    giveUp @10 :GiveUp;
    heartbeat @11 :Heartbeat;
  }
}
